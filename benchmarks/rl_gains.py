r"""What became of each start: accuracy after RL against accuracy before it, a point a run; PNG, SVG and CSV.

    python benchmarks/rl_gains.py runs/label_counts \
        --pairs sft_500:pathwise_500,sft_600:pathwise_600,sft_500:continued_500

A pair is START:END, names of rows; rows that are called alike up to their last part get one marker. Read are
the greedy evaluations of `latentplan compare`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from figures import arguments_of, save

MARKERS = "oxs^Dv*+"


class Change(NamedTuple):
    """A run and its start, accuracies as shares."""

    start: str
    end: str
    seed: str
    before: float
    after: float

    @property
    def kind(self) -> str:
        """`pathwise` of `pathwise_500`."""
        return self.end.rpartition("_")[0] or self.end


def changes(runs: Path, start: str, end: str, stem: str) -> list[Change]:
    """The seeds of a pair. Raises ValueError where none has been evaluated."""
    found = []
    for file in sorted(runs.glob(f"[0-9]*/{end}/evaluation/{stem}.json")):
        seed = file.parents[2].name
        before = json.loads((runs / seed / start / "evaluation" / file.name).read_text())
        after = json.loads(file.read_text())
        accuracies = (each["accuracy"]["estimate"] for each in (before, after))
        found.append(Change(start, end, seed, *accuracies))
    if not found:
        raise ValueError(f"no run of {end!r} in {runs} has an evaluation {stem}.json")
    return found


def draw(found: list[Change]) -> Any:
    """The figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5))
    axes = figure.subplots()
    kinds = defaultdict(list)
    for change in found:
        kinds[change.kind].append(change)
    for marker, (kind, members) in zip(MARKERS, kinds.items(), strict=False):
        before, after = ([100 * getattr(each, name) for each in members] for name in ("before", "after"))
        axes.scatter(before, after, marker=marker, label=kind, alpha=0.8)
    low = 100 * min(min(each.before, each.after) for each in found) - 2
    axes.plot([low, 100], [low, 100], color="0.7", linewidth=1, zorder=0)
    axes.set_xlabel("accuracy of the start, %")
    axes.set_ylabel("accuracy afterwards, %")
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Reads the evaluations, and writes CSV, PNG and SVG."""
    parser = arguments_of(__doc__, "gains")
    parser.add_argument("--pairs", required=True, help="START:END, with commas between")
    parser.add_argument("--evaluation", default="minigsm-quickstart", help="name of the files of results")
    arguments = parser.parse_args()
    try:
        pairs = [pair.split(":") for pair in arguments.pairs.split(",")]
        found = [
            change
            for start, end in pairs
            for change in changes(arguments.runs, start, end, arguments.evaluation)
        ]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    save(draw(found), arguments.output, Change._fields, found)


if __name__ == "__main__":
    main()
