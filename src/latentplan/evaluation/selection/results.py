"""`SelectionResult`: accuracy against tokens for each way to choose among samples, as a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from latentplan.evaluation.results import Estimate, SamplingSettings
from latentplan.evaluation.saved_json import SavedJson

FORMAT_VERSION = 1

PASS = "pass"
MAJORITY = "majority"
COHERENCE = "coherence"
PLAN_SCORE = "plan_score"
PLAN_SCORE_VOTE = "plan_score_vote"
SELECTORS = {
    PASS: "any right (needs the answer)",
    MAJORITY: "majority vote",
    COHERENCE: "best coherence",
    PLAN_SCORE: "best plan score",
    PLAN_SCORE_VOTE: "best plan score, then vote",
}
"""The ways to choose, and what they are called; only the first needs to know what is right."""


@dataclass(frozen=True)
class Point:
    """One answer chosen from k samples.

    Attributes:
        k: samples.
        tokens: latents and text of all k, a question.
        accuracy: of the chosen answer, with its 95% interval over problems.
    """

    k: int
    tokens: float
    accuracy: Estimate


@dataclass(frozen=True)
class EqualTokens:
    """A point beside the reference's majority vote with at most as many tokens.

    Attributes:
        selector, k, tokens, accuracy: of the point.
        reference_k: samples of the reference that its tokens pay for; 0 where not even one.
        reference_accuracy: of its majority vote; None where `reference_k` is 0.
        difference: the point's accuracy minus the reference's, with the paired 95% interval; None as well.
    """

    selector: str
    k: int
    tokens: float
    accuracy: Estimate
    reference_k: int
    reference_accuracy: Estimate | None = None
    difference: Estimate | None = None


@dataclass(frozen=True)
class ModelCurves:
    """What one model reaches.

    Attributes:
        name: in tables.
        model: the folder that it came from.
        method: its training method.
        tokens: mean tokens of a sample.
        greedy: the most probable trajectory, k = 1.
        curves: by selector, for k = 1, 2, 4, …
        equal_tokens: beside the reference; empty for itself, and without one.
    """

    name: str
    model: str
    method: str
    tokens: float
    greedy: Point
    curves: dict[str, list[Point]]
    equal_tokens: list[EqualTokens] = field(default_factory=list)


@dataclass(frozen=True)
class SelectionResult(SavedJson):
    """Models on one benchmark.

    Attributes:
        benchmark: its short name.
        data_fingerprint: equal for equal problems in equal order.
        num_problems, num_generations: problems, and samples of each.
        sampling, seed: how they were drawn.
        reference: the name of the model that the others stand beside at equal tokens; None without one.
        models: in the order in which they were given.
        created: when, ISO 8601 in UTC.
        device: what it ran on.
        versions: of Python and the libraries.
        format_version: of this file.
    """

    called: ClassVar[str] = "a selection result"

    benchmark: str
    data_fingerprint: str
    num_problems: int
    num_generations: int
    sampling: SamplingSettings
    seed: int
    reference: str | None
    models: list[ModelCurves]
    created: str
    device: str
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @classmethod
    def read_parts(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a row, with dataclasses in the place of dictionaries."""
        models = [_model(each) for each in row["models"]]
        return {**row, "sampling": SamplingSettings(**row["sampling"]), "models": models}


def _model(row: Mapping[str, Any]) -> ModelCurves:
    return ModelCurves(
        **{
            **row,
            "greedy": _point(row["greedy"]),
            "curves": {name: [_point(each) for each in points] for name, points in row["curves"].items()},
            "equal_tokens": [_equal(each) for each in row["equal_tokens"]],
        }
    )


def _point(row: Mapping[str, Any]) -> Point:
    return Point(**{**row, "accuracy": Estimate(**row["accuracy"])})


def _equal(row: Mapping[str, Any]) -> EqualTokens:
    parts = {name: row[name] for name in ("accuracy", "reference_accuracy", "difference")}
    estimates = {name: None if part is None else Estimate(**part) for name, part in parts.items()}
    return EqualTokens(**{**row, **estimates})
