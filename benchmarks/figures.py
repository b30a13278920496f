"""What the scripts that draw results share: their arguments, and a figure beside the numbers in it."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def arguments_of(description: str | None, output: str) -> argparse.ArgumentParser:
    """A parser with the folder of runs and the place of what is written."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="the folder of runs, as --runs of latentplan compare")
    parser.add_argument("--output", type=Path, default=Path(output), help="without an ending")
    return parser


def save(figure: Any, stem: Path, fields: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes STEM.png, STEM.svg and STEM.csv."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    for ending in (".png", ".svg"):
        figure.savefig(stem.with_name(stem.name + ending), dpi=150, bbox_inches="tight")
    with stem.with_name(f"{stem.name}.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(fields)
        table.writerows(rows)
