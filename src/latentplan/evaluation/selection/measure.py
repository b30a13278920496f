"""Samples of each question to curves: every k from one rollout, and models side by side at equal tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan

from latentplan.evaluation.diagnosis.figures import mean as mean_figure
from latentplan.evaluation.predictions import Prediction, predictions_of
from latentplan.evaluation.results import Estimate
from latentplan.evaluation.rollouts import evaluation_mode
from latentplan.evaluation.scores import accuracy_estimate, mean_tokens, plan_scores
from latentplan.evaluation.selection.formulas import (
    best_at_k,
    best_then_vote_at_k,
    majority_at_k,
    tally,
)
from latentplan.evaluation.selection.results import (
    COHERENCE,
    MAJORITY,
    PASS,
    PLAN_SCORE,
    PLAN_SCORE_VOTE,
    EqualTokens,
    ModelCurves,
    Point,
)
from latentplan.evaluation.statistics import mean_interval, pass_at_k, wilson_interval
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.solve import solve


@dataclass(frozen=True)
class Samples:
    """A question's samples, column by column.

    Attributes:
        right: whether each is right.
        answers: equal where they agree; None without an answer.
        coherence, plan_score: of the plan; None without one.
    """

    right: list[bool]
    answers: list[object]
    coherence: list[float | None]
    plan_score: list[float | None]


AtK = Callable[[Samples, int], float]


def _majority(samples: Samples, k: int) -> float:
    return majority_at_k(*tally(samples.answers, samples.right))[k - 1]


AT_K: dict[str, AtK] = {
    PASS: lambda samples, k: pass_at_k(len(samples.right), sum(samples.right), k),
    MAJORITY: _majority,
    COHERENCE: lambda samples, k: best_at_k(samples.coherence, samples.right, k),
    PLAN_SCORE: lambda samples, k: best_at_k(samples.plan_score, samples.right, k),
    PLAN_SCORE_VOTE: lambda samples, k: best_then_vote_at_k(
        samples.plan_score, samples.right, samples.answers, k
    ),
}
"""The probability that the answer chosen from k of a question's samples is right."""
_SURE = 1e-9
_NEED_PLANS = (COHERENCE, PLAN_SCORE, PLAN_SCORE_VOTE)


@dataclass(frozen=True)
class Sampled:
    """All samples of a model.

    Attributes:
        curves: without what stands beside the reference.
        samples: of each problem.
    """

    curves: ModelCurves
    samples: list[Samples]


def sample_model(
    model: LoadedModel,
    problems: Sequence[Problem],
    *,
    name: str,
    sampling: Sampling,
    num_generations: int,
    seed: int,
    batch_size: int,
    on_progress: Callable[[int], None] = lambda solved: None,
) -> Sampled:
    """The curves of a model for k = 1, 2, 4, … up to `num_generations`, from that many samples a question.

    Args:
        model: reasoner, step decoder or None, tokenizer.
        problems: what to solve.
        name: the model's in tables.
        sampling: of the samples.
        num_generations: samples of each question.
        seed: of the noise.
        batch_size: trajectories at a time.
        on_progress: called with the number of questions just solved.

    Raises:
        ValueError: there are no problems.
    """
    if not problems:
        raise ValueError("there are no problems to choose answers for")

    def predictions(sampling: Sampling, count: int) -> list[Prediction]:
        solutions = solve(
            model,
            [problem.question for problem in problems],
            sampling,
            seed=seed,
            num_generations=count,
            batch_size=max(1, batch_size // count),
            on_progress=on_progress,
        )
        rows = enumerate(zip(problems, solutions, strict=True))
        return [each for place, pair in rows for each in predictions_of(place, *pair)]

    with evaluation_mode(model):
        drawn = predictions(sampling, num_generations)
        greedy = predictions(Sampling.greedy(sampling.max_new_tokens), 1)
    samples = samples_of(problems, drawn, num_generations)
    tokens = mean_tokens(drawn).mean
    has_plans = any(score is not None for each in samples for score in each.plan_score)
    return Sampled(
        ModelCurves(
            name=name,
            model=model.reasoner.name_or_path or "",
            method=model.reasoner.config.method,
            tokens=tokens,
            greedy=Point(1, mean_tokens(greedy).mean, accuracy_estimate(greedy)),
            curves=_curves(samples, tokens, num_generations, has_plans),
        ),
        samples,
    )


def _curves(
    samples: Sequence[Samples], tokens: float, largest: int, has_plans: bool
) -> dict[str, list[Point]]:
    """Of each way of choosing that there is for these samples, a point for k = 1, 2, 4, … up to `largest`."""
    powers = [2**power for power in range(largest.bit_length())]
    return {
        selector: [Point(k, k * tokens, _estimate(samples, at_k, k)) for k in powers]
        for selector, at_k in AT_K.items()
        if has_plans or selector not in _NEED_PLANS
    }


def samples_of(
    problems: Sequence[Problem], predictions: Sequence[Prediction], num_generations: int
) -> list[Samples]:
    """Predictions, the samples of a problem being neighbours, as the samples of each problem."""
    scores = plan_scores(problems, predictions)
    found = []
    for start in range(0, len(predictions), num_generations):
        rows = slice(start, start + num_generations)
        group = predictions[rows]
        found.append(
            Samples(
                right=[each.correct for each in group],
                answers=[_vote(problems[each.index], each.answer) for each in group],
                coherence=list(scores.coherence_strict[rows]),
                plan_score=list(scores.plan[rows]),
            )
        )
    return found


def beside(sampled: Sampled, reference: Sampled) -> ModelCurves:
    """A model's curves with each point beside the reference's majority vote for at most as many tokens."""
    rows = []
    most = len(reference.samples[0].right)
    for selector, points in sampled.curves.curves.items():
        if selector == PASS:
            continue
        for point in points:
            k = min(most, int(point.tokens / reference.curves.tokens + 1e-9))
            rows.append(_row(sampled, reference, selector, point, k))
    return replace(sampled.curves, equal_tokens=rows)


def _row(sampled: Sampled, reference: Sampled, selector: str, point: Point, k: int) -> EqualTokens:
    start = EqualTokens(selector, point.k, point.tokens, point.accuracy, k)
    if k == 0:
        return start
    mine = [AT_K[selector](samples, point.k) for samples in sampled.samples]
    its = [_majority(samples, k) for samples in reference.samples]
    difference = mean_figure("", [a - b for a, b in zip(mine, its, strict=True)])
    assert difference.estimate is not None
    return replace(
        start,
        reference_accuracy=_estimate(reference.samples, _majority, k),
        difference=Estimate(difference.estimate, difference.low, difference.high),
    )


def _estimate(samples: Sequence[Samples], at_k: AtK, k: int) -> Estimate:
    """The mean over problems, with Student's interval, or Wilson's where each is surely right or wrong."""
    values = [at_k(each, k) for each in samples]
    if all(min(value, 1 - value) < _SURE for value in values):
        return Estimate(*wilson_interval(round(sum(values)), len(values)))
    estimate, low, high = mean_interval(values)
    return Estimate(estimate) if isnan(low) else Estimate(estimate, max(0.0, low), min(1.0, high))


def _vote(problem: Problem, answer: str | None) -> object:
    """Equal for answers that are the same, as the problem's kind of answer decides."""
    return None if answer is None else problem.kind.vote(answer)
