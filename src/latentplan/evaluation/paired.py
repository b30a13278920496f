"""Tests of two models on the same problems, each trained with several seeds; exact, but for the bootstrap.

sign_flip_test([1, 1, 1, 0])             three problems fall to a, none to b: p = 2/8
paired_bootstrap([0.5, 0, -0.5, 1.0])    the mean difference and its interval
holm([0.01, 0.04, 0.03])                 [0.03, 0.06, 0.06]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from latentplan.evaluation.statistics import Interval


def sign_flip_test(differences: Sequence[int]) -> float:
    """Two-sided p-value of 'the two models are equally good', from the difference on each problem.

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
    """Chances of 0 … count heads of `count` fair coins."""
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(count + 1)
    ]
    return np.exp(np.array(logs) - count * math.log(2))


def paired_bootstrap(
    differences: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean difference over problems and its percentile interval when problems are drawn again.

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
    """As `paired_bootstrap` at 95%, with exact bounds where all differences are 0, or all 1, or all -1.

    A bootstrap, which sees no others, would take these for certain.
    """
    interval = paired_bootstrap(differences)
    mean, low, high = interval
    if abs(mean) in (0, 1) and low == high:
        low, high = beyond_what_was_seen(mean, len(differences))
        low = -high if mean == 0 else low  # as many could have been lost as gained
    return Interval(mean, low, high)


def beyond_what_was_seen(share: float, count: int) -> tuple[float, float]:
    """The exact 95% bounds of 0, 1 or -1 in every one of `count` problems.

    Clopper & Pearson (1934), 'The use of confidence or fiducial limits', Biometrika 26:404-413.
    """
    others = 1 - 0.025 ** (1 / count)
    return {0: (0.0, others), 1: (1 - others, 1.0), -1: (-1.0, others - 1)}[round(share)]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for there being several, in their order: the chance of any false alarm stays below.

    The i-th smallest of m (from 0) is multiplied by m − i, and none gets smaller than one before it. Holm
    (1979), 'A simple sequentially rejective multiple test procedure', Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
