"""Accuracy against tokens: up and to the left is better. Drawn by matplotlib (the extra `plot`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentplan.report.plot_style import COLOURS, MARKERS
from latentplan.report.runs import is_number


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
        _panel(panel, [row for row in rows if row["benchmark"] == benchmark], benchmark)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    files = [folder / "accuracy_tokens.png", folder / "accuracy_tokens.svg"]
    for file in files:
        figure.savefig(file, dpi=160)
    return files


def _panel(panel: Any, rows: Sequence[Mapping[str, Any]], benchmark: str) -> None:
    for place, row in enumerate(rows):
        if not (is_number(row["accuracy"]) and is_number(row["tokens"])):
            continue
        look = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
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
