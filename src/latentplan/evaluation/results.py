"""`EvaluationResult`: what one evaluation found, as the JSON file that tables and reports are made of.

    {"format_version": 1, "benchmark": "svamp", "accuracy": {"estimate": 0.9, "low": 0.83, "high": 0.94}, ...}

A measure that does not apply to a model, such as coherence without readable plans, is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from latentplan.evaluation.saved_json import SavedJson

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
    """Mean coherence of the plans, as `rewards.plan_rewards` and, for sentences, `rewards.sentence_coherence` define it.

    `strict` and `paper` are None where no plan has equations that could lead to its answer.
    """

    strict: float | None
    paper: float | None
    natural: float | None = None


@dataclass(frozen=True)
class Reconstruction:
    """Shares of steps that the step decoder reads back, see `evaluation.reconstruction`.

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
    """Greedy accuracy with the latents intact and replaced, see `evaluation.latent_use`."""

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
        accuracy: share of right answers; with several generations, the mean over them.
        tokens: mean tokens of a trajectory.
        finished: share of trajectories that ended with eos.
        seconds: spent on generation alone, without any diagnostics.
        created: when, ISO 8601 in UTC.
        device: what it ran on.
        versions: of Python and the libraries.
        pass_at_k: by k ("1", "2", "4", …); None with one generation.
        coherence, validity, grounding, plan_score: means over trajectories with a plan; None without plans.
        reconstruction: None without a step decoder.
        latent_use: None without latents, or where it was not asked for.
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
        """The fields of a row, with dataclasses in the place of dictionaries."""
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
