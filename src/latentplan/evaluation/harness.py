"""`evaluate`: one model on one set of problems, from rollouts to an `EvaluationResult`.

result, predictions = evaluate(load_model("runs/NAME/model"), problems, benchmark="svamp")
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import torch
import transformers

import latentplan
from latentplan.evaluation.latent_metrics import Diagnostics, diagnose
from latentplan.evaluation.metrics import (
    Prediction,
    accuracy_estimate,
    group_by_steps,
    mean_coherence,
    mean_of,
    mean_tokens,
    pass_at_powers,
    plan_scores,
    predictions_of,
)
from latentplan.evaluation.results import EvaluationResult, SamplingSettings
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.token_loop import InputRule
from latentplan.problems.fingerprint import question_fingerprint
from latentplan.problems.problem import Problem
from latentplan.rollout.solve import (
    GreedyChains,
    evaluation_mode,
    greedy_chains,
    read_solutions,
    roll_out,
)

GREEDY = Sampling.greedy(max_new_tokens=128)

OnProgress = Callable[[list[Prediction]], None]


def evaluate(
    model: LoadedModel,
    problems: Sequence[Problem],
    *,
    benchmark: str = "",
    sampling: Sampling = GREEDY,
    seed: int = 0,
    num_generations: int = 1,
    batch_size: int = 128,
    latent_use: bool = True,
    trained_on: int | None = None,
    on_progress: OnProgress = lambda solved: None,
) -> tuple[EvaluationResult, list[Prediction]]:
    """Measures everything that there is to measure of a model on a set of problems.

    Reconstruction, latent use and stop calibration are of the greedy trajectories, whatever `sampling` is.

    Args:
        model: reasoner, step decoder or None, tokenizer, processor; left in the mode that it is in.
        problems: what to solve.
        benchmark: the set's short name.
        sampling: temperatures and length.
        seed: of the noise; a problem's noise follows from it and the problem's index.
        num_generations: trajectories of each problem.
        batch_size: trajectories at a time; it changes no result.
        latent_use: whether to answer again with the latents replaced (four more answers for each problem).
        trained_on: how many of the questions the model was trained on, where that is known.
        on_progress: called with the predictions of each batch just solved.

    Returns:
        The result, and the predictions in the order of the problems.

    Raises:
        ValueError: there are no problems, or `num_generations` does not fit the sampling.
    """
    _check(problems, sampling, num_generations, batch_size)
    settings = _Settings(benchmark, sampling, seed, num_generations, batch_size, trained_on)
    with evaluation_mode(model):
        solved = _solve(model, problems, settings, on_progress)
        diagnostics = diagnose(
            model,
            problems,
            _chains(model, problems, solved, settings),
            seed=seed,
            max_new_tokens=sampling.max_new_tokens,
            batch_size=batch_size,
            latent_use=latent_use,
        )
    return _result(model, problems, settings, solved, diagnostics), solved.predictions


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that decide the numbers."""
    return {
        "latentplan": latentplan.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


@dataclass(frozen=True)
class _Settings:
    benchmark: str
    sampling: Sampling
    seed: int
    num_generations: int
    batch_size: int
    trained_on: int | None

    @property
    def greedy(self) -> bool:
        return _is_greedy(self.sampling)


@dataclass(frozen=True)
class _Solved:
    """Predictions in the order of the problems, the chains of greedy batches, and seconds of generation."""

    predictions: list[Prediction]
    chains: list[GreedyChains]
    seconds: float


def _check(problems: Sequence[Problem], sampling: Sampling, num_generations: int, batch_size: int) -> None:
    if not problems:
        raise ValueError("there are no problems to evaluate on")
    if num_generations < 1 or batch_size < 1:
        raise ValueError(
            f"num_generations ({num_generations}) and batch_size ({batch_size}) must be at least 1"
        )
    if num_generations > 1 and _is_greedy(sampling):
        raise ValueError(
            f"{num_generations} greedy trajectories of a problem are all the same: "
            "set a temperature above 0, or num_generations to 1"
        )


def _is_greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0 and sampling.latent_temperature == 0


def _solve(
    model: LoadedModel, problems: Sequence[Problem], settings: _Settings, on_progress: OnProgress
) -> _Solved:
    predictions: list[Prediction] = []
    chains: list[GreedyChains] = []
    seconds, group = 0.0, settings.num_generations
    for batch in roll_out(
        model,
        [problem.question for problem in problems],
        settings.sampling,
        seed=settings.seed,
        num_generations=group,
        batch_size=settings.batch_size,
    ):
        seconds += batch.seconds
        solutions = read_solutions(model, batch.trajectories)
        solved: list[Prediction] = []
        for row, index in enumerate(batch.indices):
            solved += predictions_of(index, problems[index], solutions[row * group : (row + 1) * group])
        if settings.greedy:
            chains.append(GreedyChains.of(batch, solutions))
        predictions += solved
        on_progress(solved)
    predictions.sort(key=lambda prediction: (prediction.index, prediction.sample))
    return _Solved(predictions, chains, seconds)


def _chains(
    model: LoadedModel, problems: Sequence[Problem], solved: _Solved, settings: _Settings
) -> GreedyChains | None:
    if not model.reasoner.config.has_latents:
        return None
    if settings.greedy:
        return GreedyChains.join(solved.chains)
    return greedy_chains(model, [problem.question for problem in problems], batch_size=settings.batch_size)


def _result(
    model: LoadedModel,
    problems: Sequence[Problem],
    settings: _Settings,
    solved: _Solved,
    diagnostics: Diagnostics,
) -> EvaluationResult:
    predictions, scores = solved.predictions, plan_scores(problems, solved.predictions)
    return EvaluationResult(
        model=model.reasoner.name_or_path or "",
        method=model.reasoner.config.method,
        benchmark=settings.benchmark,
        data_fingerprint=question_fingerprint(problems),
        num_problems=len(problems),
        sampling=_sampling_settings(model, settings.sampling),
        seed=settings.seed,
        num_generations=settings.num_generations,
        accuracy=accuracy_estimate(predictions),
        tokens=mean_tokens(predictions),
        finished=sum(prediction.finished for prediction in predictions) / len(predictions),
        seconds=solved.seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=str(model.reasoner.device),
        versions=versions(),
        pass_at_k=pass_at_powers(predictions, settings.num_generations),
        coherence=mean_coherence(scores),
        validity=mean_of(scores.validity),
        grounding=mean_of(scores.grounding),
        plan_score=mean_of(scores.plan),
        reconstruction=diagnostics.reconstruction,
        latent_use=diagnostics.latent_use,
        stop=diagnostics.stop,
        by_steps=group_by_steps(predictions, scores.coherence),
        warnings=[*_contamination(settings.trained_on, len(problems)), *diagnostics.warnings],
        trained_on=settings.trained_on,
    )


def _contamination(trained_on: int | None, num_problems: int) -> list[str]:
    if not trained_on:
        return []
    return [f"the model was trained on {trained_on} of these {num_problems} questions"]


def _sampling_settings(model: LoadedModel, sampling: Sampling) -> SamplingSettings:
    config = model.reasoner.config
    if config.input_rule == InputRule.name:
        return SamplingSettings(**asdict(sampling))
    return SamplingSettings(
        **asdict(sampling), input_rule=config.input_rule, input_rule_settings=config.input_rule_settings
    )
