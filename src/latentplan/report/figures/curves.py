"""Curves along the chain and over training.

Along the chain: the probability of stopping before each step, and σ beside the spread of μ. Over training:
the reward and its components, from the `metrics.jsonl` of runs of RL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentplan.evaluation.latent_table import LatentTable, StopRow
from latentplan.report.figures.style import look, new_figure
from latentplan.report.run_reader import Run
from latentplan.report.svg import moving_average, thinned
from latentplan.report.wording import metric_title

StopPoint = tuple[int, float, float, float, int]
MIN_ROWS = 5
"""Fewer chains than this have come to a step: it is not drawn."""


def draw_stops(tables: Mapping[str, LatentTable]) -> Any:
    """Draws P(stop) before each latent step: a panel for each model, a line for each number of labelled
    steps.
    """
    shown = {title: table for title, table in tables.items() if table.stops}
    figure = new_figure(1.6 + 4.2 * len(shown), 3.7)
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True, sharex=True)[0]
    for panel, (title, table) in zip(panels, shown.items(), strict=True):
        _stop_panel(panel, table.stops)
        panel.set_title(title, fontweight="bold")
    panels[0].set_ylabel("probability of stopping here")
    handles, labels = max(
        (panel.get_legend_handles_labels() for panel in panels), key=lambda found: len(found[1])
    )
    figure.legend(handles, labels, loc="outside right center", title="steps in the\nlabelled chain")
    return figure


def stop_curves(stops: Sequence[StopRow]) -> dict[int, list[StopPoint]]:
    """Computes by labelled steps (step, mean, 10% and 90% quantile, chains), where at least 5 chains
    decided.
    """
    found: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for stop in stops:
        found[stop.needed][stop.step].append(stop.probability)
    curves: dict[int, list[StopPoint]] = {}
    for needed, by_step in sorted(found.items()):
        curves[needed] = []
        for step, values in sorted(by_step.items()):
            if len(values) >= MIN_ROWS:
                low, high = map(float, np.quantile(values, [0.1, 0.9]))
                curves[needed].append((step, float(np.mean(values)), low, high, len(values)))
    return curves


def _stop_panel(panel: Any, stops: Sequence[StopRow]) -> None:
    curves = {needed: curve for needed, curve in stop_curves(stops).items() if curve}
    last = max((stop.step for stop in stops), default=1)
    for index, (needed, curve) in enumerate(curves.items()):
        steps, means, low, high, _ = map(np.array, zip(*curve, strict=True))
        # Lines side by side, so that none hides another.
        at = steps + 0.06 * (index - (len(curves) - 1) / 2)
        style = look(index)
        panel.errorbar(
            at, means, yerr=[means - np.minimum(low, means), np.maximum(high, means) - means], capsize=2.5,
            elinewidth=0.9, markersize=6, label=str(needed) if needed else "not known", **style,
        )  # fmt: skip
        for x, step, mean in zip(at, steps, means, strict=True):
            if needed and step == needed + 1:
                panel.plot(x, mean, "o", markersize=13, fillstyle="none", color=style["color"], mew=1.0)
    panel.set(xlabel="asked before latent step", ylim=(-0.06, 1.08), xticks=range(1, last + 1))
    panel.set_xlim(0.6, last + 0.4)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    panel.grid(axis="y", alpha=0.7)


def draw_sigma(tables: Mapping[str, LatentTable]) -> Any:
    """Draws σ of each latent step (mean over dimensions), and the spread of μ between problems, for each
    model.
    """
    figure = new_figure(8.2, 3.7)
    noise, spread = figure.subplots(1, 2)
    for index, (title, table) in enumerate(tables.items()):
        rows = sigma_curve(table)
        if not rows:
            continue
        steps, median, low, high, between, _ = map(np.array, zip(*rows, strict=True))
        style = look(index)
        bars = [median - low, high - median]
        noise.errorbar(
            steps + 0.06 * index, median, yerr=bars, capsize=2.5, elinewidth=0.9, label=title, **style
        )
        spread.plot(steps, between / median, label=title, **style)
    noise.set(title="σ, mean over dimensions", xlabel="latent step", ylabel="σ")
    spread.set(title="spread of μ between problems, in units of σ", xlabel="latent step", ylabel="times σ")
    last = max((row.step for table in tables.values() for row in table.rows), default=1)
    for panel in (noise, spread):
        panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
        panel.set_xlim(0.6, last + 0.4)
        panel.set_xticks(range(1, last + 1, 1 + last // 12))
        panel.grid(axis="y", alpha=0.7)
    handles, labels = noise.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def sigma_curve(table: LatentTable) -> list[tuple[int, float, float, float, float, int]]:
    """Computes (step, median σ, its 10% and 90% quantile, spread of μ, chains), where at least 5 chains came
    to it.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for row in table.rows:
        if row.sigma is not None:
            found[row.step].append(row.sigma)
    curve = []
    for step, values in sorted(found.items()):
        if len(values) >= MIN_ROWS:
            low, median, high = map(float, np.quantile(values, [0.1, 0.5, 0.9]))
            curve.append((step, median, low, high, table.spread(step) or 0.0, len(values)))
    return curve


def reward_parts(run: Run) -> list[str]:
    """Returns the names of the logged reward components, in alphabetical order."""
    keys = {key for row in run.metrics for key in row if key.startswith("rewards/") and key.endswith("/mean")}
    return sorted(key for key in keys if run.series(key))


def draw_rewards(runs: Sequence[Run]) -> Any:
    """Returns a row for each run: its components, their weighted sum, and how that differs within a group."""
    figure = new_figure(12.6, 3.3 * len(runs))
    for (parts, total, spread), run in zip(figure.subplots(len(runs), 3, squeeze=False), runs, strict=True):
        for index, key in enumerate(reward_parts(run)):
            _curve(parts, run, key, index, _part_title(key))
        parts.legend(fontsize=8, handlelength=3)
        parts.set(title=f"{run.title}: components", ylabel="mean over trajectories")
        _curve(total, run, "reward", 0, "reward")
        total.set(title="reward, their weighted sum")
        _curve(spread, run, "reward_std", 0, "spread")
        spread.set(title="its standard deviation within a group", ylim=(0, None))
        for panel in (parts, total, spread):
            panel.set_xlabel("optimisation step")
            panel.grid(axis="y", alpha=0.7)
    return figure


def _curve(panel: Any, run: Run, key: str, index: int, label: str) -> None:
    points = thinned(run.series(key))
    if not points:
        return
    style = look(index)
    panel.plot(*zip(*points, strict=True), color=style["color"], alpha=0.25, linewidth=1)
    smooth = moving_average(points)
    panel.plot(
        *zip(*smooth, strict=True), label=label, markevery=max(1, len(smooth) // 8), markersize=5, **style
    )


def _part_title(key: str) -> str:
    title = metric_title(key).removeprefix("Reward part: ")
    return title[:1].lower() + title[1:]
