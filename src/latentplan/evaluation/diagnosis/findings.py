"""`Diagnosis`: what was found about a model's latents, with figures, thresholds and verdicts.

{"format_version": 1, "findings": [{"name": "silent_failure", "status": "sound", "verdict": "…",
 "figures": [{"name": "accuracy, latents intact", "estimate": 0.97, "low": 0.95, "high": 0.98}]}, …], …}

A `Figure` is a number with its 95% interval. The thresholds of the verdicts are conventions, not laws: each
says why it is there, and the figures are saved with the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from latentplan.evaluation.results import Estimate, SavedJson
from latentplan.evaluation.statistics import (
    beyond_what_was_seen,
    paired_bootstrap,
    paired_interval,
    wilson_interval,
)
from latentplan.rollout.decoding_accuracy import RELIABLE_RECONSTRUCTION

FORMAT_VERSION = 1

SOUND = "sound"
FAILED = "failed"
UNCLEAR = "unclear"
NOTED = "noted"
NOT_APPLICABLE = "not applicable"
STATUSES = (SOUND, FAILED, UNCLEAR, NOTED, NOT_APPLICABLE)


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what it is, in words; a group of figures shares what comes before a colon.
        estimate: the number; None where there was nothing to measure.
        low, high: its 95% interval, None where none is known.
        unit: "share" of 1, shown in per cent; or "" for other numbers.
        count: how many problems, pairs or steps it is about.
    """

    name: str
    estimate: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    count: int | None = None

    @property
    def text(self) -> str:
        """For people: `95.8% [94.4, 96.9]`."""
        if self.estimate is None:
            return "–"
        scale, sign = (100, "%") if self.unit == "share" else (1, "")
        digits = 1 if self.unit == "share" else 2
        shown = f"{scale * self.estimate:.{digits}f}{sign}"
        if self.low is None or self.high is None:
            return shown
        return f"{shown} [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a model.

    Attributes:
        name: for `--fail_on`.
        status: `sound`; `failed`; `unclear`, where the interval holds the threshold; `noted`, where there is
            no judgement; `not applicable`.
        verdict: in a sentence.
        threshold: what was required, and why.
        figures: behind the verdict.
    """

    name: str
    status: str
    verdict: str
    threshold: str = ""
    figures: list[Figure] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"there is no status {self.status!r}: it must be one of {', '.join(STATUSES)}")

    def figure(self, name: str) -> Figure:
        """Returns the figure with this name. Raises KeyError if there is none."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(f"{self.name} has no figure {name!r}: {', '.join(each.name for each in self.figures)}")


@dataclass(frozen=True)
class Diagnosis(SavedJson):
    """All findings about one model on one set of problems.

    Attributes:
        model: the folder that the model came from.
        method: its training method.
        benchmark: the problems' short name.
        data_fingerprint: equal for equal problems in equal order.
        num_problems: how many.
        seed: of noise and samples.
        accuracy: greedy, with Wilson's interval.
        findings: in the order in which they are shown.
        created: when, ISO 8601 in UTC.
        device: what it ran on.
        seconds: that it took.
        versions: of Python and the libraries.
        format_version: of this file.
    """

    called: ClassVar[str] = "a diagnosis"

    model: str
    method: str
    benchmark: str
    data_fingerprint: str
    num_problems: int
    seed: int
    accuracy: Estimate
    findings: list[Finding]
    created: str
    device: str
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def finding(self, name: str) -> Finding:
        """Returns the finding with this name. Raises KeyError if there is none."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"there is no finding {name!r}: {', '.join(each.name for each in self.findings)}")

    @property
    def failed(self) -> list[str]:
        """Names of the findings that failed."""
        return [finding.name for finding in self.findings if finding.status == FAILED]

    @classmethod
    def read_parts(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a row, with dataclasses instead of dictionaries."""
        findings = [_finding(each) for each in row["findings"]]
        return {**row, "accuracy": Estimate(**row["accuracy"]), "findings": findings}


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(**{**row, "figures": [Figure(**figure) for figure in row["figures"]]})


def not_applicable(name: str, reason: str) -> Finding:
    """Returns a finding that says in one line why there is none."""
    return Finding(name, NOT_APPLICABLE, reason)


def at_least(figure: Figure, threshold: float) -> str:
    """Returns `sound` where the whole interval is at least the threshold, `failed` below it, else `unclear`.

    Without an interval the estimate decides; without an estimate nothing is clear.
    """
    if figure.estimate is None:
        return UNCLEAR
    low = figure.estimate if figure.low is None else figure.low
    high = figure.estimate if figure.high is None else figure.high
    if low >= threshold:
        return SOUND
    return FAILED if high < threshold else UNCLEAR


def at_most(figure: Figure, threshold: float) -> str:
    """Returns `sound` where the whole interval is at most the threshold, `failed` above it, else
    `unclear`.
    """
    if figure.estimate is None:
        return UNCLEAR
    low = figure.estimate if figure.low is None else figure.low
    high = figure.estimate if figure.high is None else figure.high
    if high <= threshold:
        return SOUND
    return FAILED if low > threshold else UNCLEAR


def worst(*statuses: str) -> str:
    """Returns `failed` if one is, else `unclear` if one is, else `sound`."""
    return next((status for status in (FAILED, UNCLEAR) if status in statuses), SOUND)


_RESAMPLES = 1000


def share(name: str, hits: Sequence[bool]) -> Figure:
    """Computes the share that is true, with Wilson's interval."""
    if not len(hits):
        return Figure(name, None, unit="share", count=0)
    return Figure(name, *wilson_interval(sum(map(bool, hits)), len(hits)), unit="share", count=len(hits))


def drop(name: str, before: Sequence[bool], after: Sequence[bool]) -> Figure:
    """Computes how much a share falls from one condition to another on the same problems, with the paired
    interval.
    """
    differences = [float(bool(a)) - float(bool(b)) for a, b in zip(before, after, strict=True)]
    if not differences:
        return Figure(name, None, unit="share", count=0)
    return Figure(name, *paired_interval(differences), unit="share", count=len(differences))


def mean(name: str, values: Sequence[float], unit: str = "") -> Figure:
    """Returns a mean over problems, with its bootstrap interval."""
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
    """Returns any statistic of rows `[n, ...]`, with the percentile interval when rows are drawn again.

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
    """Computes Σ of the first column over Σ of the second of `[n, 2]`."""
    total = rows[:, 1].sum()
    return float(rows[:, 0].sum() / total) if total else None


def slope(rows: np.ndarray) -> float | None:
    """Computes the slope of a straight line through (first column, second column)."""
    x, y = rows[:, 0] - rows[:, 0].mean(), rows[:, 1] - rows[:, 1].mean()
    spread = float(x @ x)
    return float(x @ y) / spread if spread else None


def correlation(rows: np.ndarray) -> float | None:
    """Computes Pearson's correlation; 0 where the second column is constant, None where the first is."""
    x, y = rows[:, 0] - rows[:, 0].mean(), rows[:, 1] - rows[:, 1].mean()
    if not x.any():
        return None
    return float(x @ y / np.sqrt((x @ x) * (y @ y))) if y.any() else 0.0


RECONSTRUCTION = RELIABLE_RECONSTRUCTION
"""Steps read back exactly. Below it, what is decoded says more about the decoder than about the latents."""

USED_SHARE = 0.1
"""Of the accuracy: latents whose exchange costs less than a tenth of the correct answers are unused."""

FOLLOWED_EDITS = 0.5
"""Of the edits: if the answer follows the latents in less than half of them, something else decides it."""

COMPUTED_WHILE_ANSWERING = 0.2
"""Of the edits of a last step that leave the answer as it was: with more, it is no accident."""

KEPT_BY_LAST_STEP = 0.9
"""Of the accuracy: a last step that keeps so much of it alone is where the answer is read."""

INFORMATION_BITS = 1.0
"""In a slot, about the question: with less, its latents cannot even tell two kinds of question apart."""

ACTIVE_VARIANCE = 0.01
"""A unit is active if its mean varies by more between questions (Burda et al. 2016, arXiv:1509.00519)."""

LENGTH_CORRELATION = 0.3
"""Of latents with difficulty: below it, length explains less than a tenth of difficulty (0.3² = 0.09)."""

EXCESS_STEPS = 0.5
"""Latent steps beyond those needed, on average: with more, about every second problem gets one too many."""

STOPS_WHERE_NEEDED = 0.9
"""Of the problems: as for reconstruction, one wrong in ten is what the later figures can bear."""

CALIBRATION_ERROR = 0.1
"""Of the stop probability: it is wrong by ten points on average."""

VALID_PLANS = 0.9
"""Of the correct answers: with fewer, the decoded plan does not explain the answer."""

LATENT_SIGNAL = 0.02
"""Of the variance of rewards: with less, the score of the latents is noise; RL warns at the same share."""
