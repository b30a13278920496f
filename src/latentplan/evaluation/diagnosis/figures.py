"""From data to figures with their 95% intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from latentplan.evaluation.diagnosis.findings import Figure
from latentplan.evaluation.paired import beyond_what_was_seen, paired_bootstrap, paired_interval
from latentplan.evaluation.statistics import wilson_interval

_RESAMPLES = 1000


def share(name: str, hits: Sequence[bool]) -> Figure:
    """How many are true, with Wilson's interval."""
    if not len(hits):
        return Figure(name, None, unit="share", count=0)
    return Figure(name, *wilson_interval(sum(map(bool, hits)), len(hits)), unit="share", count=len(hits))


def drop(name: str, before: Sequence[bool], after: Sequence[bool]) -> Figure:
    """How much a share falls from one condition to another on the same problems, with the paired interval."""
    differences = [float(bool(a)) - float(bool(b)) for a, b in zip(before, after, strict=True)]
    if not differences:
        return Figure(name, None, unit="share", count=0)
    return Figure(name, *paired_interval(differences), unit="share", count=len(differences))


def mean(name: str, values: Sequence[float], unit: str = "") -> Figure:
    """A mean over problems, with its bootstrap interval."""
    if not len(values):
        return Figure(name, None, unit=unit, count=0)
    return Figure(name, *paired_bootstrap(list(map(float, values))), unit=unit, count=len(values))


def resampled(
    name: str,
    statistic: Callable[[np.ndarray], float | None],
    rows: np.ndarray,
    unit: str = "",
    seed: int = 0,
) -> Figure:
    """Any statistic of rows `[n, ...]`, with the percentile interval when rows are drawn again.

    The statistic may be None for rows that it is not defined on; such draws are left out.
    """
    value = None if not len(rows) else statistic(rows)
    if value is None:
        return Figure(name, None, unit=unit, count=len(rows))
    draws = np.random.default_rng(seed).integers(len(rows), size=(_RESAMPLES, len(rows)))
    found = [each for each in (statistic(rows[draw]) for draw in draws) if each is not None]
    low, high = np.quantile(found, [0.025, 0.975]) if found else (value, value)
    if unit == "share" and value in (0, 1) and low == high:
        return Figure(name, value, *beyond_what_was_seen(value, len(rows)), unit=unit, count=len(rows))
    return Figure(name, float(value), float(low), float(high), unit=unit, count=len(rows))


def ratio(rows: np.ndarray) -> float | None:
    """Σ of the first column over Σ of the second of `[n, 2]`."""
    total = rows[:, 1].sum()
    return float(rows[:, 0].sum() / total) if total else None


def slope(rows: np.ndarray) -> float | None:
    """Of a straight line through (first column, second column)."""
    x, y = rows[:, 0] - rows[:, 0].mean(), rows[:, 1] - rows[:, 1].mean()
    spread = float(x @ x)
    return float(x @ y) / spread if spread else None


def correlation(rows: np.ndarray) -> float | None:
    """Pearson's; 0 where the second column is constant, None where the first is."""
    x, y = rows[:, 0] - rows[:, 0].mean(), rows[:, 1] - rows[:, 1].mean()
    if not x.any():
        return None
    return float(x @ y / np.sqrt((x @ x) * (y @ y))) if y.any() else 0.0
