"""One answer chosen from k samples: how often it is correct, and at how many tokens.

A model is sampled once; every k follows from the same n samples, exactly, over all k-subsets and without
drawing. Models stand side by side at equal tokens.

majority_at_k([Answer(3, True), Answer(1, False)], 0)     of 4 samples: 3/4, 1/2 + 1/4, 1, 1   for k = 1 … 4
best_at_k([0.9, 0.5, 0.5], [True, False, True], 2)        2/3 + 1/3·1/2: the best, or one of the others
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from math import comb, isnan
from typing import NamedTuple

from latentplan.evaluation.diagnosis.findings import mean as mean_figure
from latentplan.evaluation.harness import versions
from latentplan.evaluation.metrics import (
    Prediction,
    accuracy_estimate,
    mean_tokens,
    plan_scores,
    predictions_of,
)
from latentplan.evaluation.results import (
    COHERENCE,
    MAJORITY,
    PASS,
    PLAN_SCORE,
    PLAN_SCORE_VOTE,
    EqualTokens,
    Estimate,
    ModelCurves,
    Point,
    SamplingSettings,
    SelectionResult,
)
from latentplan.evaluation.statistics import mean_interval, pass_at_k, wilson_interval
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.problems.fingerprint import question_fingerprint
from latentplan.problems.problem import Problem
from latentplan.rollout.solve import evaluation_mode, solve


class Answer(NamedTuple):
    """One of the different answers among a problem's samples: how many gave it, and whether it is correct."""

    votes: int
    correct: bool


def majority_at_k(answers: Sequence[Answer], silent: int) -> list[float]:
    """Returns the probability that the most frequent answer of k samples is correct, for k = 1 … n.

    The k samples are drawn without replacement from the n that there are, so the estimate is unbiased for
    each k, as pass@k is. Of equally frequent answers one is taken at random. Wang et al. (2023),
    'Self-consistency improves chain of thought reasoning', arXiv:2203.11171.

    Args:
        answers: the different answers.
        silent: samples without any answer; they have no vote. Where nobody votes nothing is correct.
    """
    counts = [answer.votes for answer in answers]
    total = sum(counts) + silent
    chances = [0.0] * total
    for index, answer in enumerate(answers):
        if answer.correct:
            others = tuple(sorted(counts[:index] + counts[index + 1 :]))
            wins = _wins(answer.votes, others, silent)
            chances = [a + b for a, b in zip(chances, wins, strict=True)]
    return chances


def best_at_k(scores: Sequence[float | None], correct: Sequence[bool], k: int) -> float:
    """Returns the probability that of k samples the one with the highest score is correct; ties at random.

    None scores lowest. With a score that knows what is correct it is pass@k, with the same score for all it
    is the mean accuracy.

    Raises:
        ValueError: `k` is not in 1 … n, or there is not one score for each sample.
    """
    return best_then_vote_at_k(scores, correct, list(range(len(correct))), k, votes=False)


def best_then_vote_at_k(
    scores: Sequence[float | None],
    correct: Sequence[bool],
    answers: Sequence[Hashable],
    k: int,
    votes: bool = True,
) -> float:
    """Chooses as `best_at_k`, but takes the most frequent answer of the samples with the highest score.

    Args:
        scores, correct: of each sample.
        answers: of each sample, equal where they agree; None has no vote.
        k: samples to choose from.
        votes: False takes any of them.
    """
    total = len(scores)
    if not (total == len(correct) == len(answers)) or not 1 <= k <= total:
        raise ValueError(
            f"best of {k} needs 1 to n samples with a score each, got {total} and {len(correct)}"
        )
    levels: dict[float, list[int]] = defaultdict(list)
    for index, score in enumerate(scores):
        levels[float("-inf") if score is None else score].append(index)
    chance, below = 0.0, 0
    for level in sorted(levels):
        indices = levels[level]
        ways = [
            comb(len(indices), taken) * comb(below, k - taken) for taken in range(min(k, len(indices)) + 1)
        ]
        if votes:
            found = majority_at_k(*tally([answers[at] for at in indices], [correct[at] for at in indices]))
            chance += sum(ways[taken] / comb(total, k) * found[taken - 1] for taken in range(1, len(ways)))
        else:
            chance += sum(ways[1:]) / comb(total, k) * sum(correct[at] for at in indices) / len(indices)
        below += len(indices)
    return chance


def tally(answers: Sequence[Hashable], correct: Sequence[bool]) -> tuple[list[Answer], int]:
    """Returns the different answers of some samples, and how many gave none (None)."""
    counts = Counter(answer for answer in answers if answer is not None)
    known = {answer for answer, hit in zip(answers, correct, strict=True) if hit}
    return [Answer(count, answer in known) for answer, count in counts.items()], list(answers).count(None)


@lru_cache(maxsize=100_000)
def _wins(count: int, others: tuple[int, ...], silent: int) -> list[float]:
    """Returns the probability that an answer given `count` times wins against others, for k = 1 … n."""
    total = count + sum(others) + silent
    chances = [0.0] * total
    for votes in range(1, count + 1):
        for ties, ways in enumerate(_ways(votes, others, silent)):
            for rest, number in enumerate(ways):
                if number:
                    k = votes + rest
                    chances[k - 1] += comb(count, votes) * number / ((ties + 1) * comb(total, k))
    return chances


def _ways(most: int, others: tuple[int, ...], silent: int) -> list[list[int]]:
    """Counts, in `[ties][size]`, subsets of other samples with no answer above `most` votes and so many at
    it.
    """
    ways = [[comb(silent, size) for size in range(silent + 1)]]
    for count in others:
        width = len(ways[0]) + min(count, most)
        ties = len(ways) + (count >= most)
        longer = [[0] * width for _ in range(ties)]
        for tied, row in enumerate(ways):
            for size, number in enumerate(row):
                for taken in range(min(count, most) + 1):
                    longer[tied + (taken == most)][size + taken] += number * comb(count, taken)
        ways = longer
    return ways


@dataclass(frozen=True)
class Samples:
    """A question's samples, column by column.

    Attributes:
        correct: whether each is correct.
        answers: equal where they agree; None without an answer.
        coherence, plan_score: of the plan; None without one.
    """

    correct: list[bool]
    answers: list[object]
    coherence: list[float | None]
    plan_score: list[float | None]


AtK = Callable[[Samples, int], float]


def _majority(samples: Samples, k: int) -> float:
    return majority_at_k(*tally(samples.answers, samples.correct))[k - 1]


AT_K: dict[str, AtK] = {
    PASS: lambda samples, k: pass_at_k(len(samples.correct), sum(samples.correct), k),
    MAJORITY: _majority,
    COHERENCE: lambda samples, k: best_at_k(samples.coherence, samples.correct, k),
    PLAN_SCORE: lambda samples, k: best_at_k(samples.plan_score, samples.correct, k),
    PLAN_SCORE_VOTE: lambda samples, k: best_then_vote_at_k(
        samples.plan_score, samples.correct, samples.answers, k
    ),
}
"""The probability that the answer chosen from k of a question's samples is correct."""
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
    """Returns the curves of a model for k = 1, 2, 4, … up to `num_generations`, from that many samples a
    question.

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
        return [each for index, pair in rows for each in predictions_of(index, *pair)]

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
    """Computes, for each way of choosing that these samples allow, a point for k = 1, 2, 4, … up to
    `largest`.
    """
    powers = [2**power for power in range(largest.bit_length())]
    return {
        selector: [Point(k, k * tokens, _estimate(samples, at_k, k)) for k in powers]
        for selector, at_k in AT_K.items()
        if has_plans or selector not in _NEED_PLANS
    }


def samples_of(
    problems: Sequence[Problem], predictions: Sequence[Prediction], num_generations: int
) -> list[Samples]:
    """Groups predictions by problem; the samples of a problem must be neighbours."""
    scores = plan_scores(problems, predictions)
    found = []
    for start in range(0, len(predictions), num_generations):
        rows = slice(start, start + num_generations)
        group = predictions[rows]
        found.append(
            Samples(
                correct=[each.correct for each in group],
                answers=[_vote(problems[each.index], each.answer) for each in group],
                coherence=list(scores.coherence_strict[rows]),
                plan_score=list(scores.plan[rows]),
            )
        )
    return found


def beside(sampled: Sampled, reference: Sampled) -> ModelCurves:
    """Returns a model's curves with each point beside the reference's majority vote for at most as many
    tokens.
    """
    rows = []
    most = len(reference.samples[0].correct)
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
    """Returns the mean over problems, with Student's interval, or Wilson's where each is surely correct or
    wrong.
    """
    values = [at_k(each, k) for each in samples]
    if all(min(value, 1 - value) < _SURE for value in values):
        return Estimate(*wilson_interval(round(sum(values)), len(values)))
    estimate, low, high = mean_interval(values)
    return Estimate(estimate) if isnan(low) else Estimate(estimate, max(0.0, low), min(1.0, high))


def _vote(problem: Problem, answer: str | None) -> object:
    """Returns a value that is equal for equal answers, as the problem's kind of answer decides."""
    return None if answer is None else problem.kind.vote(answer)


def compare_models(
    benchmark: str,
    problems: Sequence[Problem],
    sampling: SamplingSettings,
    seed: int,
    sampled: Sequence[Sampled],
    models: Sequence[LoadedModel],
) -> SelectionResult:
    """Returns all models' curves, beside the first of them that writes its steps and has no latents."""
    written = [
        each
        for each, model in zip(sampled, models, strict=True)
        if model.reasoner.config.written_steps and not model.reasoner.config.has_latents
    ]
    reference = written[0] if written else None
    return SelectionResult(
        benchmark=benchmark,
        data_fingerprint=question_fingerprint(problems),
        num_problems=len(problems),
        num_generations=len(sampled[0].samples[0].correct),
        sampling=sampling,
        seed=seed,
        reference=None if reference is None else reference.curves.name,
        models=[
            each.curves if reference is None or each is reference else beside(each, reference)
            for each in sampled
        ],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=str(models[0].reasoner.device),
        versions=versions(),
    )
