"""The reward and its components over training, from the `metrics.jsonl` of runs of RL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentplan.report.formats import metric_title
from latentplan.report.plot_style import look, new_figure
from latentplan.report.runs import Run
from latentplan.report.svg import moving_average, thinned


def reward_parts(run: Run) -> list[str]:
    """The names of the logged reward components, in alphabetical order."""
    keys = {key for row in run.metrics for key in row if key.startswith("rewards/") and key.endswith("/mean")}
    return sorted(key for key in keys if run.series(key))


def draw_rewards(runs: Sequence[Run]) -> Any:
    """A row for each run: its components, their weighted sum, and how that differs within a group."""
    figure = new_figure(12.6, 3.3 * len(runs))
    for (parts, total, spread), run in zip(figure.subplots(len(runs), 3, squeeze=False), runs, strict=True):
        for place, key in enumerate(reward_parts(run)):
            _curve(parts, run, key, place, _part_title(key))
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


def _curve(panel: Any, run: Run, key: str, place: int, label: str) -> None:
    points = thinned(run.series(key))
    if not points:
        return
    style = look(place)
    panel.plot(*zip(*points, strict=True), color=style["color"], alpha=0.25, linewidth=1)
    smooth = moving_average(points)
    panel.plot(
        *zip(*smooth, strict=True), label=label, markevery=max(1, len(smooth) // 8), markersize=5, **style
    )


def _part_title(key: str) -> str:
    title = metric_title(key).removeprefix("Reward part: ")
    return title[:1].lower() + title[1:]
