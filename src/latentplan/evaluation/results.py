"""What is saved of an evaluation: `EvaluationResult` and `SelectionResult`, the JSON that tables are made of.

    {"format_version": 1, "benchmark": "svamp", "accuracy": {"estimate": 0.9, "low": 0.83, "high": 0.94}, ...}

A result has a format version, is written in one move and read strictly. A measure that does not apply to a
model, such as coherence without readable plans, is null.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from latentplan.common.files import write_atomically


class SavedJson:
    """A dataclass with a field `format_version`, whose default is the version that can be read.

    Attributes:
        called: what messages call it, with its article.
    """

    called: ClassVar[str]
    format_version: int

    @classmethod
    def read_parts(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a row, with dataclasses instead of dictionaries."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Returns plain dictionaries, lists, numbers and strings; the format version comes first."""
        return {"format_version": self.format_version, **asdict(cast(Any, self))}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Returns the inverse of `to_json`.

        Raises:
            ValueError: the row is something else, or of another format version; the message says which.
        """
        known = {item.name: item for item in fields(cast(Any, cls))}
        version, readable = row.get("format_version"), known["format_version"].default
        if version != readable:
            raise ValueError(f"format_version is {version!r}; this version of latentplan reads {readable}")
        unknown = set(row) - set(known)
        if unknown:
            raise ValueError(f"{cls.called} has no {', '.join(sorted(unknown))}")
        try:
            return cls(**cls.read_parts(row))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not {cls.called}: {error}") from error

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Writes the JSON file in one move, so that no reader ever sees half of it; makes its folder."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        return write_atomically(Path(file), text + "\n")

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Self:
        """Loads a file that `save` wrote. Raises ValueError, naming the file, if it holds nothing of the
        kind.
        """
        try:
            return cls.from_json(json.loads(Path(file).read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{os.fspath(file)}: {error}") from error


FORMAT_VERSION = 1


@dataclass(frozen=True)
class Estimate:
    """A share and its 95% interval; the bounds are None where nothing is known of the spread."""

    estimate: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class SamplingSettings:
    """How trajectories were drawn, see `modeling.sampling.Sampling`.

    Attributes:
        input_rule: what was read after each token, where it was not the token itself.
        input_rule_settings: the rule's own settings.
    """

    temperature: float
    latent_temperature: float
    max_new_tokens: int
    input_rule: str | None = None
    input_rule_settings: dict[str, Any] | None = None


@dataclass(frozen=True)
class Tokens:
    """Mean tokens of a trajectory: latents used, text before eos, and `mean`, their sum."""

    mean: float
    latents: float
    text: float


@dataclass(frozen=True)
class Coherence:
    """Mean coherence of the plans, as `rewards.plan_rewards` and `rewards.sentence_coherence` define it.

    `strict` and `paper` are None where no plan has equations that could lead to its answer.
    """

    strict: float | None
    paper: float | None
    natural: float | None = None


@dataclass(frozen=True)
class Reconstruction:
    """Shares of steps that the step decoder reads back, see `evaluation.latent_metrics`.

    Attributes:
        teacher_exact, teacher_result: as many latent steps as labelled; the same text, the same result.
        free_exact, free_result: the plans of the greedy trajectories, against the nearest valid plan.
    """

    teacher_exact: float | None
    teacher_result: float | None
    free_exact: float | None
    free_result: float | None


@dataclass(frozen=True)
class LatentUse:
    """Greedy accuracy with the latents intact and replaced, see `evaluation.latent_metrics`."""

    intact: float
    zero: float
    noise: float
    other_question: float | None


@dataclass(frozen=True)
class StopCalibration:
    """Latent steps of the greedy trajectories against those needed.

    Attributes:
        exact: the share of problems where the two are equal.
        mean_predicted, mean_needed: steps.
    """

    exact: float
    mean_predicted: float
    mean_needed: float


@dataclass(frozen=True)
class StepGroup:
    """The problems whose labelled chain has one number of steps."""

    num_problems: int
    accuracy: float
    tokens: float
    coherence: float | None


@dataclass(frozen=True)
class EvaluationResult(SavedJson):
    """One model on one benchmark.

    Attributes:
        model: the folder that the model came from.
        method: its training method.
        benchmark: its short name.
        data_fingerprint: equal for equal problems in equal order.
        num_problems: problems evaluated.
        sampling, seed, num_generations: how the trajectories were drawn.
        accuracy: share of correct answers; with several generations, the mean over them.
        tokens: mean tokens of a trajectory.
        finished: share of trajectories that ended with eos.
        seconds: spent on generation alone, without any diagnostics.
        created: when, ISO 8601 in UTC.
        device: what it ran on.
        versions: of Python and the libraries.
        pass_at_k: by k ("1", "2", "4", …); None with one generation.
        coherence, validity, grounding, plan_score: means over trajectories with a plan; None without plans.
        reconstruction: None without a step decoder.
        latent_use: None without latents, or where it was not requested.
        stop: None without a stop head.
        by_steps: by the number of labelled steps.
        warnings: what a reader of the numbers has to know.
        trained_on: how many of the questions the model was trained on; None where that is not known.
        format_version: of this file.
    """

    called: ClassVar[str] = "an evaluation result"

    model: str
    method: str
    benchmark: str
    data_fingerprint: str
    num_problems: int
    sampling: SamplingSettings
    seed: int
    num_generations: int
    accuracy: Estimate
    tokens: Tokens
    finished: float
    seconds: float
    created: str
    device: str
    versions: dict[str, str]
    pass_at_k: dict[str, float] | None = None
    coherence: Coherence | None = None
    validity: float | None = None
    grounding: float | None = None
    plan_score: float | None = None
    reconstruction: Reconstruction | None = None
    latent_use: LatentUse | None = None
    stop: StopCalibration | None = None
    by_steps: dict[str, StepGroup] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    trained_on: int | None = None
    format_version: int = FORMAT_VERSION

    @classmethod
    def read_parts(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a row, with dataclasses instead of dictionaries."""
        return {name: _read(name, value) for name, value in row.items()}


_PARTS: dict[str, type] = {
    "sampling": SamplingSettings,
    "accuracy": Estimate,
    "tokens": Tokens,
    "coherence": Coherence,
    "reconstruction": Reconstruction,
    "latent_use": LatentUse,
    "stop": StopCalibration,
}


def _read(name: str, value: Any) -> Any:
    if name == "by_steps":
        return {steps: StepGroup(**group) for steps, group in value.items()}
    return value if value is None or name not in _PARTS else _PARTS[name](**value)


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
"""The ways to choose, and what they are called; only the first needs to know what is correct."""


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
    """A point and the reference's majority vote with at most as many tokens.

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
        equal_tokens: compared with the reference; empty for itself, and without one.
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
        reference: the name of the model that the others are compared with at equal tokens; None without one.
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
        """Returns the fields of a row, with dataclasses instead of dictionaries."""
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
