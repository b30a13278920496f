"""Whether two runs really differ: on the same problems by McNemar's test, else by their intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from latentplan.evaluation.statistics import mcnemar
from latentplan.report.runs import Run, is_number

SIGNIFICANT = 0.05

Prediction = dict[str, Any]


class Comparison(NamedTuple):
    """Run b against run a.

    Attributes:
        change: accuracy of b minus that of a.
        differs: whether chance is an unlikely explanation.
        fixed: problems that only b got right, None where the two cannot be paired.
        broken: problems that only a got right, None likewise.
        p_value: of McNemar's test, None likewise.
    """

    change: float
    differs: bool
    fixed: int | None = None
    broken: int | None = None
    p_value: float | None = None


def compare(a: Run, b: Run) -> Comparison | None:
    """Run b against run a; None if one of them was not evaluated."""
    estimates = [run.measured("accuracy", "estimate") for run in (a, b)]
    if not all(map(is_number, estimates)):
        return None
    change = estimates[1] - estimates[0]
    pairs = list(paired(a, b))
    if not pairs:
        return Comparison(change, _lies_below(a, b) or _lies_below(b, a))
    test = mcnemar([bool(row["correct"]) for row, _ in pairs], [bool(row["correct"]) for _, row in pairs])
    return Comparison(change, test.p_value < SIGNIFICANT, test.only_b, test.only_a, test.p_value)


def _lies_below(a: Run, b: Run) -> bool:
    high, low = a.measured("accuracy", "high"), b.measured("accuracy", "low")
    return is_number(high) and is_number(low) and high < low


def paired(a: Run, b: Run) -> Iterator[tuple[Prediction, Prediction]]:
    """The predictions of both for every question that both have, in the order of a."""
    of_b = by_problem(b)
    for problem, row in by_problem(a).items():
        if problem in of_b:
            yield row, of_b[problem]


def by_problem(run: Run) -> dict[tuple[Any, Any], Prediction]:
    """The first prediction for each problem, by its place in the benchmark and its question."""
    rows: dict[tuple[Any, Any], Prediction] = {}
    for row in run.predictions:
        if isinstance(row.get("question"), str) and "correct" in row:
            rows.setdefault((row.get("index"), row["question"]), row)
    return rows
