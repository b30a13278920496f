r"""Curves of the RL runs of a comparison: a line a row, the range of its seeds shaded, the numbers as CSV.

    python benchmarks/rl_curves.py runs/few_labels --rows atp_latent_rl,score_function,answers
    python benchmarks/rl_curves.py runs/few_labels --rows coherence_only \
        --metric rewards/coherence_strict/mean
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Point(NamedTuple):
    """A metric at one optimisation step, over seeds."""

    row: str
    step: int
    seeds: int
    mean: float
    lowest: float
    highest: float


def curve(runs: Path, row: str, metric: str) -> list[Point]:
    """The metric of a row's runs. Raises ValueError where none logs it."""
    found: dict[int, list[float]] = defaultdict(list)
    for file in sorted(runs.glob(f"[0-9]*/{row}/metrics.jsonl")):
        for values in map(json.loads, file.read_text().splitlines()):
            if metric in values:
                found[values["step"]].append(values[metric])
    if not found:
        raise ValueError(f"no run of {row!r} in {runs} logs {metric}")
    return [
        Point(row, step, len(values), sum(values) / len(values), min(values), max(values))
        for step, values in sorted(found.items())
    ]


def draw(curves: list[list[Point]], metric: str, stem: Path) -> None:
    """Writes STEM.png and STEM.svg."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for points in curves:
        steps = [point.step for point in points]
        (line,) = axes.plot(steps, [point.mean for point in points], label=points[0].row)
        low, high = [point.lowest for point in points], [point.highest for point in points]
        axes.fill_between(steps, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    axes.set_xlabel("optimisation step")
    axes.set_ylabel(metric)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    for ending in (".png", ".svg"):
        figure.savefig(stem.with_name(stem.name + ending), dpi=150, bbox_inches="tight")


def main() -> None:
    """Reads the runs, and writes CSV, PNG and SVG."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="the folder of runs, as --runs of latentplan compare")
    parser.add_argument("--rows", required=True, help="names of rows, with commas between")
    parser.add_argument("--metric", default="rewards/accuracy/mean")
    parser.add_argument("--output", type=Path, default=Path("curves"), help="without an ending")
    arguments = parser.parse_args()
    try:
        curves = [curve(arguments.runs, row, arguments.metric) for row in arguments.rows.split(",")]
    except ValueError as error:
        parser.error(str(error))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.with_name(f"{arguments.output.name}.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Point._fields)
        table.writerows(point for points in curves for point in points)
    draw(curves, arguments.metric, arguments.output)


if __name__ == "__main__":
    main()
