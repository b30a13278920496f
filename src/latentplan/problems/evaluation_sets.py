"""Evaluation data by name: `minigsm:PRESET`, or whatever `parse_benchmark_argument` reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from latentplan.problems.sources import Reading, parse_benchmark_argument
from latentplan.problems.minigsm import PRESETS, MinigsmConfig, generate
from latentplan.problems.minigsm.presets import Split
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.formats.own_data import ColumnMap

MINIGSM_PROBLEMS = 1000
"""Problems of a minigsm preset's test split, where no number is given; always drawn with seed 0."""


def evaluation_set(
    argument: str, *, limit: int | None = None, split: str = "test", columns: ColumnMap | None = None
) -> tuple[str, Callable[[], list[Problem]]]:
    """The label of an evaluation set, and the function that loads it.

    Args:
        argument: `minigsm:PRESET`, NAME, FILE, NAME=FILE, or a data set of the hub, owner/name.
        limit: how many problems at most; of minigsm exactly so many.
        split: which part to take; of minigsm `test` or `validation`.
        columns: which column holds which field, where the data has no known format.

    Raises:
        DataError: the argument names nothing. Loading raises it too, for what cannot be read, and ValueError
            where minigsm has fewer distinct problems than asked for.
    """
    preset = minigsm_preset(argument)
    if preset is not None:
        count = limit or MINIGSM_PROBLEMS
        return argument, lambda: list(generate(preset, split=cast(Split, split), count=count, seed=0))
    parsed = parse_benchmark_argument(argument)
    return parsed.label, lambda: parsed.load(split=split, limit=limit, columns=columns)


def place_in_set(
    argument: str,
    problem: Problem | None,
    *,
    split: str = "test",
    columns: ColumnMap | None = None,
) -> str:
    """File and line of a problem of an evaluation set, which is read again; arguments as `evaluation_set`."""
    if minigsm_preset(argument) is not None:
        return argument
    scan = parse_benchmark_argument(argument).scan(Reading(split=split, columns=columns))
    line = next((line for line, outcome in scan.outcomes if outcome == problem), None)
    return scan.source if line is None else f"{scan.source}:{line}"


def minigsm_preset(argument: str) -> MinigsmConfig | None:
    """The dials that `minigsm:PRESET` names; None for other arguments, and where a file has that name.

    Raises:
        DataError: there is no such preset.
    """
    world, colon, preset = argument.partition(":")
    if world != "minigsm" or Path(argument).exists():
        return None
    if not colon or preset not in PRESETS:
        raise DataError(f"{argument!r} is no minigsm preset; write minigsm:NAME with {', '.join(PRESETS)}")
    return PRESETS[preset]
