"""latentplan's own format, one `Problem.to_json` a line: question, steps, answer; perhaps plans, modulus."""

from __future__ import annotations

from latentplan.problems.formats.columns import text_column, texts_column
from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import DataError, Problem


def own_problem(row: Row) -> Problem:
    """A row of latentplan's own format, text kept to the letter. Raises DataError on a broken row."""
    text_column(row, "question")
    texts_column(row, "steps")
    _check_answer(row)
    check_plans(row.get("plans"))
    check_modulus(row.get("modulus"))
    return Problem.from_json(row)


def _check_answer(row: Row) -> None:
    if not isinstance(row.get("answer"), int | float) or isinstance(row["answer"], bool):
        text_column(row, "answer")


def check_plans(plans: object) -> None:
    """Raises DataError where plans are given that are no list of chains."""
    if plans is None:
        return
    if not isinstance(plans, list):
        raise DataError(f"column 'plans' must be a list of chains, not {type(plans).__name__}")
    for index, plan in enumerate(plans):
        texts_column({f"plans[{index}]": plan}, f"plans[{index}]")


def check_modulus(modulus: object) -> None:
    """Raises DataError where a modulus is given that is no integer of 2 or more."""
    if modulus is not None and (not isinstance(modulus, int) or isinstance(modulus, bool) or modulus < 2):
        raise DataError(f"column 'modulus' must be an integer of 2 or more, not {modulus!r}")
