"""Accuracy against tokens, for answers chosen from samples and for the rows of a comparison.

Up and to the left is better. Drawn by matplotlib (the extra `plot`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentplan.common.text_table import is_number
from latentplan.evaluation.results import SELECTORS, Estimate, ModelCurves, Point, SelectionResult
from latentplan.report.figures.style import COLOURS, MARKERS

_APART = 1.04

# Colours that differ in brightness too; lines and markers that differ without any colour.
LOOKS: dict[str, dict[str, Any]] = {
    "pass": {"color": "#9aa4ad", "ls": ":", "marker": ""},
    "majority": {"color": "#00529b", "ls": "-", "marker": "o"},
    "coherence": {"color": "#b97400", "ls": "--", "marker": "s"},
    "plan_score": {"color": "#00876a", "ls": "-.", "marker": "^"},
    "plan_score_vote": {"color": "#c8470b", "ls": (0, (5, 1, 1, 1, 1, 1)), "marker": "D"},
}


def draw_best_of_n(result: SelectionResult, stem: Path) -> list[Path]:
    """Writes STEM.png and STEM.svg, a panel for each model; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    figure = Figure(figsize=(2.6 + 4.2 * len(result.models), 4.2), layout="constrained")
    panels = figure.subplots(1, len(result.models), squeeze=False, sharey=True, sharex=True)[0]
    reference = next((model for model in result.models if model.name == result.reference), None)
    for panel, model in zip(panels, result.models, strict=True):
        _panel(panel, model, None if model is reference else reference)
    panels[0].set_ylabel("accuracy, %")
    panels[0].set_ylim(top=101)
    _legend(figure, panels)
    files = [stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")]
    for file in files:
        figure.savefig(file, dpi=160)
    return files


def _panel(panel: Any, model: ModelCurves, reference: ModelCurves | None) -> None:
    if reference is not None:
        points = reference.curves["majority"]
        panel.plot(
            [point.tokens for point in points],
            [100 * point.accuracy.estimate for point in points],
            color="black",
            lw=1,
            marker="x",
            label=f"{reference.name}, majority vote",
        )
    for index, (selector, points) in enumerate(model.curves.items()):
        _curve(panel, points, SELECTORS[selector], LOOKS[selector], _APART ** (index - 2.5) if index else 1.0)
    panel.plot(
        model.greedy.tokens,
        100 * model.greedy.accuracy.estimate,
        ls="",
        marker="*",
        ms=13,
        mfc="white",
        mec="black",
        label="greedy, one answer",
    )
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set(title=model.name, xlabel="tokens a question (latents and text)")
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _curve(panel: Any, points: list[Point], label: str, look: dict[str, Any], shift: float) -> None:
    """Draws a curve with bars of 95%; curves stand a little apart, or their bars would hide each other."""
    tokens = [shift * point.tokens for point in points]
    heights = [100 * point.accuracy.estimate for point in points]
    panel.plot(tokens, heights, label=label, ms=5, mfc="white", **look)
    if look["marker"]:
        bars = [_bar(point.accuracy) for point in points]
        panel.errorbar(
            tokens, heights, yerr=list(zip(*bars, strict=True)), color=look["color"], ls="", lw=0.8, capsize=2
        )


def _bar(accuracy: Estimate) -> tuple[float, float]:
    """Returns how far the interval goes below and above the estimate, in points."""
    if accuracy.low is None or accuracy.high is None:
        return 0.0, 0.0
    return (
        100 * max(0.0, accuracy.estimate - accuracy.low),
        100 * max(0.0, accuracy.high - accuracy.estimate),
    )


def _legend(figure: Any, panels: Any) -> None:
    entries: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        handlelength=3.5,
    )


def draw_comparison(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes `accuracy_tokens.png` and `.svg`, a panel for each benchmark; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    figure = Figure(figsize=(1.2 + 5.2 * len(benchmarks), 4.2), layout="constrained")
    panels = figure.subplots(1, len(benchmarks), squeeze=False)[0]
    for panel, benchmark in zip(panels, benchmarks, strict=True):
        _comparison_panel(panel, [row for row in rows if row["benchmark"] == benchmark], benchmark)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    files = [folder / "accuracy_tokens.png", folder / "accuracy_tokens.svg"]
    for file in files:
        figure.savefig(file, dpi=160)
    return files


def _comparison_panel(panel: Any, rows: Sequence[Mapping[str, Any]], benchmark: str) -> None:
    for index, row in enumerate(rows):
        if not (is_number(row["accuracy"]) and is_number(row["tokens"])):
            continue
        look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        panel.errorbar(
            row["tokens"],
            100 * row["accuracy"],
            yerr=_bars(row),
            label=row["method"],
            capsize=3,
            ls="",
            **look,
        )
    panel.set(title=benchmark, xlabel="tokens a problem (latents and text)", ylabel="accuracy, %")
    panel.set_xlim(left=0)
    panel.set_ylim(-3, 103)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _bars(row: Mapping[str, Any]) -> list[list[float]] | None:
    low, high = row["accuracy_low"], row["accuracy_high"]
    if not (is_number(low) and is_number(high)):
        return None
    return [[100 * max(0.0, row["accuracy"] - low)], [100 * max(0.0, high - row["accuracy"])]]
