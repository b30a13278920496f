"""Every pair of rows tested on the problems that both have answered with every seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from latentplan.evaluation.statistics import holm, mcnemar, mean_interval, paired_bootstrap, sign_flip_test
from latentplan.report.comparison.measures import Comparison, Row


@dataclass(frozen=True)
class Pair:
    """Row b against row a on one benchmark.

    Attributes:
        benchmark, a, b: which.
        num_problems: that both have answered.
        difference: accuracy of b minus that of a, the mean over seeds.
        low, high: 95% paired bootstrap over problems.
        seeds_low, seeds_high: 95% Student interval of the difference over seeds; None with one seed.
        p_value: of the sign-flip test over problems (McNemar's exact test with one seed).
        p_holm: corrected for all pairs of the benchmark.
        mcnemar: of each seed, the problems that only a and only b solved, and the p-value.
    """

    benchmark: str
    a: str
    b: str
    num_problems: int
    difference: float
    low: float
    high: float
    seeds_low: float | None
    seeds_high: float | None
    p_value: float
    mcnemar: list[dict[str, Any]]
    p_holm: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def all_pairs(comparison: Comparison, benchmark: str) -> list[Pair]:
    """Every two rows, those with the reference first, each with the reference or the earlier row as a."""
    reference = comparison.plan["reference"]
    rows = sorted(comparison.rows, key=lambda row: row.name != reference)
    found = [_pair(one, other, benchmark) for one, other in combinations(rows, 2)]
    pairs = [pair for pair in found if pair is not None]
    corrected = holm([pair.p_value for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def _pair(one: Row, other: Row, benchmark: str) -> Pair | None:
    both = [
        (first.predictions.get(benchmark, {}), second.predictions.get(benchmark, {}))
        for first, second in zip(one.runs, other.runs, strict=True)
    ]
    both = [(first, second) for first, second in both if first and second]
    if not both:
        return None
    shared = [key for key in both[0][0] if all(key in each for pair in both for each in pair)]
    if not shared:
        return None
    gains = [sum(second[key] - first[key] for first, second in both) for key in shared]
    by_seed = [sum(second[key] - first[key] for key in shared) / len(shared) for first, second in both]
    estimate, low, high = paired_bootstrap([gain / len(both) for gain in gains])
    spread = mean_interval(by_seed) if len(by_seed) > 1 else None
    tests = [mcnemar([a[key] for key in shared], [b[key] for key in shared]) for a, b in both]
    return Pair(
        benchmark,
        one.name,
        other.name,
        len(shared),
        estimate,
        low,
        high,
        None if spread is None else spread.low,
        None if spread is None else spread.high,
        sign_flip_test(gains),
        [test._asdict() for test in tests],
    )
