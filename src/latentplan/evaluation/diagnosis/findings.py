"""`Diagnosis`: what was found about a model's latents, as the JSON file that tables are made of.

{"format_version": 1, "findings": [{"name": "silent_failure", "status": "sound", "verdict": "…",
 "figures": [{"name": "accuracy, latents intact", "estimate": 0.97, "low": 0.95, "high": 0.98}]}, …], …}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from latentplan.evaluation.results import Estimate
from latentplan.evaluation.saved_json import SavedJson

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
        threshold: what was asked for, and why.
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
        """The figure with this name. Raises KeyError if there is none."""
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
        """The finding with this name. Raises KeyError if there is none."""
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
        """The fields of a row, with dataclasses in the place of dictionaries."""
        findings = [_finding(each) for each in row["findings"]]
        return {**row, "accuracy": Estimate(**row["accuracy"]), "findings": findings}


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(**{**row, "figures": [Figure(**figure) for figure in row["figures"]]})


def not_applicable(name: str, reason: str) -> Finding:
    """A finding that says in one line why there is none."""
    return Finding(name, NOT_APPLICABLE, reason)


def at_least(figure: Figure, threshold: float) -> str:
    """`sound` where the whole interval is at least the threshold, `failed` where it is below, else `unclear`.

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
    """`sound` where the whole interval is at most the threshold, `failed` where above, else `unclear`."""
    if figure.estimate is None:
        return UNCLEAR
    low = figure.estimate if figure.low is None else figure.low
    high = figure.estimate if figure.high is None else figure.high
    if high <= threshold:
        return SOUND
    return FAILED if low > threshold else UNCLEAR


def worst(*statuses: str) -> str:
    """`failed` if one is, else `unclear` if one is, else `sound`."""
    return next((status for status in (FAILED, UNCLEAR) if status in statuses), SOUND)
