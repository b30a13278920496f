r"""Curves of the RL runs of a comparison: a line a row, the range of its seeds shaded, the numbers as CSV.

    python benchmarks/rl_curves.py runs/few_labels --rows atp_latent_rl,score_function,answers
    python benchmarks/rl_curves.py runs/few_labels --rows coherence_only \
        --metric rewards/coherence_strict/mean
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from figures import arguments_of, save


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


def draw(curves: list[list[Point]], metric: str) -> Any:
    """The figure."""
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
    return figure


def main() -> None:
    """Reads the runs, and writes CSV, PNG and SVG."""
    parser = arguments_of(__doc__, "curves")
    parser.add_argument("--rows", required=True, help="names of rows, with commas between")
    parser.add_argument("--metric", default="rewards/accuracy/mean")
    arguments = parser.parse_args()
    try:
        curves = [curve(arguments.runs, row, arguments.metric) for row in arguments.rows.split(",")]
    except ValueError as error:
        parser.error(str(error))
    points = [point for points in curves for point in points]
    save(draw(curves, arguments.metric), arguments.output, Point._fields, points)


if __name__ == "__main__":
    main()
