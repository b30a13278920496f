"""Predictions and what they come to: accuracy, tokens, plans, also by the length of the labelled chain.

A `Prediction` is one trajectory with the problem that it answers, and a line of a JSONL file.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any

from latentplan.evaluation.results import Coherence, Estimate, StepGroup, Tokens
from latentplan.evaluation.statistics import mean_interval, pass_at_k, wilson_interval
from latentplan.problems.problem import Problem
from latentplan.rewards import BUILT_IN
from latentplan.rewards.plan_graph import in_sentences
from latentplan.rollout.solve import Solution


@dataclass(frozen=True)
class Prediction:
    """One trajectory and the problem that it answers.

    Attributes:
        index: the problem's index in the benchmark, from 0.
        sample: which of the problem's trajectories, from 0.
        question: in words.
        reference: the correct answer.
        answer: the predicted answer, as its kind extracts it; None where there is none.
        correct: whether the two match.
        completion: what was written after the latents, without eos.
        plan: decoded steps (step decoder), explicit steps (CoT), or None.
        num_latents: latent tokens used.
        num_tokens: latent tokens and text tokens before eos.
        finished: whether eos was written.
        steps: the labelled chain.
        modulus: the problem's, for arithmetic modulo a number; else None.
        answer_kind: the problem's, where it names one; else None, and the reference tells it.
    """

    index: int
    sample: int
    question: str
    reference: str
    answer: str | None
    correct: bool
    completion: str
    plan: list[str] | None
    num_latents: int
    num_tokens: int
    finished: bool
    steps: list[str]
    modulus: int | None = None
    answer_kind: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the row that the JSONL file holds; `answer_kind` is left out when absent."""
        row = asdict(self)
        if self.answer_kind is None:
            del row["answer_kind"]
        return row


def predictions_of(index: int, problem: Problem, solutions: Sequence[Solution]) -> list[Prediction]:
    """Returns the solutions of the problem of this index, judged."""
    return [
        Prediction(
            index=index,
            sample=sample,
            question=problem.question,
            reference=problem.answer,
            answer=problem.kind.extract(solution.completion),
            correct=problem.kind.is_correct(solution.completion, problem.answer),
            completion=solution.completion,
            plan=solution.plan,
            num_latents=solution.num_latents,
            num_tokens=solution.num_tokens,
            finished=solution.finished,
            steps=list(problem.steps),
            modulus=problem.modulus,
            answer_kind=problem.answer_kind,
        )
        for sample, solution in enumerate(solutions)
    ]


def are_correct(completions: Sequence[str], problems: Sequence[Problem]) -> list[bool]:
    """Returns whether each completion gives the answer of its problem, as the problem's kind of answer
    decides.
    """
    pairs = zip(completions, problems, strict=True)
    return [problem.kind.is_correct(completion, problem.answer) for completion, problem in pairs]


class PredictionWriter:
    """A JSONL file of predictions that grows batch by batch, in the order in which they are solved.

    Use it as a context manager, and call `write` with the predictions of each batch.

    Args:
        file: its folder is made; an older file is replaced.
    """

    def __init__(self, file: str | os.PathLike[str]):
        self.file = Path(file)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._lines = self.file.open("w", encoding="utf-8")

    def write(self, predictions: Iterable[Prediction]) -> None:
        """Appends rows and hands them to the operating system."""
        for prediction in predictions:
            self._lines.write(json.dumps(prediction.to_json(), ensure_ascii=False) + "\n")
        self._lines.flush()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()


@dataclass(frozen=True)
class PlanScores:
    """Scores of each prediction's plan, all in [0, 1]; None without a plan, and where one does not apply."""

    coherence_strict: Sequence[float | None]
    coherence_paper: Sequence[float | None]
    coherence_natural: Sequence[float | None]
    validity: Sequence[float | None]
    grounding: Sequence[float | None]
    plan: Sequence[float | None]

    @property
    def coherence(self) -> Sequence[float | None]:
        """The coherence that fits the chains: `coherence_natural` for sentences, else `coherence_strict`."""
        natural = any(score is not None for score in self.coherence_natural)
        return self.coherence_natural if natural else self.coherence_strict


def plan_scores(problems: Sequence[Problem], predictions: Sequence[Prediction]) -> PlanScores:
    """Returns the scores of `latentplan.rewards` for each prediction, of the problem at its `index`.

    `coherence_natural` is scored where the labelled chains are sentences, or are missing and the plans are.
    """
    of = [problems[prediction.index] for prediction in predictions]
    columns = {
        "prompts": [problem.question for problem in of],
        "completions": [prediction.completion for prediction in predictions],
        "answer": [problem.answer for problem in of],
        "question": [problem.question for problem in of],
        "modulus": [problem.modulus for problem in of],
        "decoded_steps": [prediction.plan for prediction in predictions],
        "problems": of,
    }
    labelled = [step for problem in problems for step in problem.steps]
    planned = [step for prediction in predictions for step in prediction.plan or ()]
    scores = {name: BUILT_IN[name](**columns) for name in PlanScores.__dataclass_fields__}
    if not in_sentences(labelled or planned):
        scores["coherence_natural"] = [None] * len(predictions)
    return PlanScores(**scores)


def mean_of(scores: Iterable[float | None]) -> float | None:
    """Returns the mean of those that are not None; None where all are."""
    values = [score for score in scores if score is not None]
    return fmean(values) if values else None


def mean_coherence(scores: PlanScores) -> Coherence | None:
    """Returns the coherences over the predictions with a plan; None where there are none."""
    means = map(mean_of, (scores.coherence_strict, scores.coherence_paper, scores.coherence_natural))
    found = Coherence(*means)
    return None if found == Coherence(None, None) else found


def accuracy_estimate(predictions: Sequence[Prediction]) -> Estimate:
    """Returns the share of correct answers with its 95% interval.

    One generation: Wilson's interval of a proportion. Several: the mean over problems of each problem's share
    of correct samples, with Student's interval over problems (samples of one problem are not independent).
    """
    by_problem = list(_correct_by_problem(predictions).values())
    if all(len(samples) == 1 for samples in by_problem):
        return Estimate(*wilson_interval(sum(map(sum, by_problem)), len(by_problem)))
    estimate, low, high = mean_interval([fmean(samples) for samples in by_problem])
    return Estimate(estimate) if isnan(low) else Estimate(estimate, max(0.0, low), min(1.0, high))


def pass_at_powers(predictions: Sequence[Prediction], num_generations: int) -> dict[str, float] | None:
    """Computes pass@k for k = 1, 2, 4, … up to `num_generations`, the mean over problems; None of one
    generation.
    """
    if num_generations == 1:
        return None
    by_problem = list(_correct_by_problem(predictions).values())
    powers = [2**power for power in range(num_generations.bit_length())]
    return {str(k): fmean(pass_at_k(len(samples), sum(samples), k) for samples in by_problem) for k in powers}


def mean_tokens(predictions: Sequence[Prediction]) -> Tokens:
    """Returns mean latents, text tokens before eos, and their sum."""
    mean = fmean(prediction.num_tokens for prediction in predictions)
    latents = fmean(prediction.num_latents for prediction in predictions)
    return Tokens(mean=mean, latents=latents, text=mean - latents)


def group_by_steps(
    predictions: Sequence[Prediction], coherence: Sequence[float | None]
) -> dict[str, StepGroup]:
    """Computes accuracy, tokens and mean `coherence` for each number of labelled steps, ascending."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, prediction in enumerate(predictions):
        groups[len(prediction.steps)].append(row)
    return {
        str(steps): StepGroup(
            num_problems=len({predictions[row].index for row in rows}),
            accuracy=fmean(predictions[row].correct for row in rows),
            tokens=fmean(predictions[row].num_tokens for row in rows),
            coherence=mean_of(coherence[row] for row in rows),
        )
        for steps, rows in sorted(groups.items())
    }


def _correct_by_problem(predictions: Sequence[Prediction]) -> dict[int, list[bool]]:
    by_problem: dict[int, list[bool]] = defaultdict(list)
    for prediction in predictions:
        by_problem[prediction.index].append(prediction.correct)
    return by_problem
