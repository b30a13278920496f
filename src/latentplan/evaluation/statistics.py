"""How sure a number in a table is: intervals, pass@k, and tests of two models on the same problems.

All formulas are exact, but for the bootstrap.

wilson_interval(90, 100)                 one seed, many problems: (0.9, 0.826, 0.945)
mean_interval([0.90, 0.92, 0.94])        several seeds: (0.92, 0.870, 0.970)
mcnemar(correct_a, correct_b).p_value    do two models differ on the same problems?
pass_at_k(16, 4, 8)                      4 of 16 samples correct: 0.962
sign_flip_test([1, 1, 1, 0])             three problems are won, none is lost: p = 2/8
paired_bootstrap([0.5, 0, -0.5, 1.0])    the mean difference and its interval
holm([0.01, 0.04, 0.03])                 [0.03, 0.06, 0.06]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """An estimate and its confidence interval, in the unit of what was measured."""

    estimate: float
    low: float
    high: float


class McNemar(NamedTuple):
    """Of `mcnemar`: how many problems only one of the two solved, and the two-sided p-value."""

    only_a: int
    only_b: int
    p_value: float


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> Interval:
    """Returns the Wilson score interval of a proportion, such as the accuracy of one model on `total`
    problems.

    Unlike p ± z·√(p(1−p)/n) it stays within [0, 1] and is sensible at 0 and at 1. Wilson (1927), 'Probable
    inference, the law of succession, and statistical inference', JASA 22:209-212.

    Raises:
        ValueError: `total` is below 1, `successes` not in 0 … total, or `confidence` not in (0, 1).
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}: there is no such proportion")
    z = NormalDist().inv_cdf((1 + _checked(confidence)) / 2)
    proportion = successes / total
    centre = (successes + z**2 / 2) / (total + z**2)
    margin = z / (total + z**2) * math.sqrt(total * proportion * (1 - proportion) + z**2 / 4)
    return Interval(proportion, max(0.0, centre - margin), min(1.0, centre + margin))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Returns the mean over seeds with Student's t interval: mean ± t(n−1)·s/√n, s with n − 1 in the
    denominator.

    One value says nothing about the spread, so its bounds are NaN. Student (1908), 'The probable error of a
    mean', Biometrika 6:1-25.

    Raises:
        ValueError: there are no values, or `confidence` is not in (0, 1).
    """
    if not values:
        raise ValueError("the mean of no values")
    _checked(confidence)
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan)
    margin = _student_t(confidence, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - margin, mean + margin)


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> McNemar:
    """Tests exactly whether two models differ on the same problems (McNemar).

    Only the problems that one solved and the other did not distinguish them; if the models are equally good,
    each of these n falls to either with probability ½, so p = min(1, 2·Σ_{i ≤ min(only_a, only_b)} C(n,
    i)/2ⁿ). McNemar (1947), Psychometrika 12:153-157, with the exact binomial.

    Raises:
        ValueError: the two do not have one entry per problem each.
    """
    if len(correct_a) != len(correct_b):
        raise ValueError(f"not the same problems: {len(correct_a)} results of a, {len(correct_b)} of b")
    pairs = list(zip(correct_a, correct_b, strict=True))
    only_a = sum(bool(a) and not b for a, b in pairs)
    only_b = sum(bool(b) and not a for a, b in pairs)
    n = only_a + only_b
    tail = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1))
    return McNemar(only_a, only_b, min(1.0, 2 * tail / 2**n))


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Returns the unbiased estimate of the probability that k samples contain a correct one: 1 −
    C(n−c, k)/C(n, k).

    Chen et al. (2021), 'Evaluating large language models trained on code', arXiv:2107.03374, equation 1.

    Raises:
        ValueError: `k` is not in 1 … num_samples, or `num_correct` not in 0 … num_samples.
    """
    if not (1 <= k <= num_samples and 0 <= num_correct <= num_samples):
        raise ValueError(f"pass@{k} cannot be estimated from {num_correct} right of {num_samples} samples")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, for instance 0.95, not {confidence}")
    return confidence


def _student_t(confidence: float, degrees: int) -> float:
    """Returns the t with P(|T| ≤ t) = confidence, by bisection on the angle θ = atan(t/√degrees)."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_mass(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _student_mass(theta: float, degrees: int) -> float:
    """Computes P(|T| ≤ √degrees·tan θ) for whole degrees of freedom: Abramowitz and Stegun, 26.7.3 and
    26.7.4.
    """
    odd = degrees % 2
    term, series = (math.cos(theta), 0.0) if odd else (1.0, 0.0)
    for power in range(1 + odd, degrees, 2):
        series += term
        term *= math.cos(theta) ** 2 * power / (power + 1)
    return 2 / math.pi * (theta + math.sin(theta) * series) if odd else math.sin(theta) * series


def sign_flip_test(differences: Sequence[int]) -> float:
    """Computes the two-sided p-value of 'the two models are equally good' from the difference on each
    problem.

    If they are, each difference is as likely as its negative; p is the share of all ways to flip the signs
    whose sum is at least as far from 0 as the one seen (Fisher, 1935, 'The design of experiments', section
    21), computed exactly. With one seed, and so differences of −1, 0 and 1, this is McNemar's exact test.

    Args:
        differences: of each problem, how many seeds of a solve it minus how many of b.
    """
    sizes = Counter(abs(difference) for difference in differences if difference)
    chances = np.ones(1)  # of the sums −reach, −reach + 2, …, reach, which are all there are
    for size, count in sizes.items():
        spread = np.zeros(count * size + 1)
        spread[::size] = _binomial(count)
        chances = np.convolve(chances, spread)
    reach = len(chances) - 1
    sums = np.arange(-reach, reach + 1, 2)
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(differences))].sum()))


def _binomial(count: int) -> np.ndarray:
    """Computes the chances of 0 … count heads of `count` fair coins."""
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(count + 1)
    ]
    return np.exp(np.array(logs) - count * math.log(2))


def paired_bootstrap(
    differences: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Returns the mean difference over problems and its percentile interval when problems are drawn again.

    It speaks of other problems of the same kind, and of the very models that were trained. Efron (1979),
    'Bootstrap methods: another look at the jackknife', Annals of Statistics 7:1-26.

    Raises:
        ValueError: there are no problems.
    """
    if not differences:
        raise ValueError("the mean of no differences")
    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(differences), counts / counts.sum(), size=resamples)
    means = draws @ values / len(differences)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values @ counts) / len(differences), float(low), float(high))


def paired_interval(differences: Sequence[float]) -> Interval:
    """Computes `paired_bootstrap` at 95%, with exact bounds where all differences are 0, or all 1, or all -1.

    A bootstrap, which sees no others, would take these for certain.
    """
    interval = paired_bootstrap(differences)
    mean, low, high = interval
    if abs(mean) in (0, 1) and low == high:
        low, high = beyond_what_was_seen(mean, len(differences))
        low = -high if mean == 0 else low  # as many could have been lost as gained
    return Interval(mean, low, high)


def beyond_what_was_seen(share: float, count: int) -> tuple[float, float]:
    """Returns the exact 95% bounds of 0, 1 or -1 in every one of `count` problems.

    Clopper & Pearson (1934), 'The use of confidence or fiducial limits', Biometrika 26:404-413.
    """
    others = 1 - 0.025 ** (1 / count)
    return {0: (0.0, others), 1: (1 - others, 1.0), -1: (-1.0, others - 1)}[round(share)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for there being several, in their order: the chance of any false alarm stays below.

    The i-th smallest of m (from 0) is multiplied by m − i, and none gets smaller than one before it. Holm
    (1979), 'A simple sequentially rejective multiple test procedure', Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
