"""`Prediction`: one trajectory beside the problem that it answers, and the JSONL file of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from latentplan.problems.problem import Problem
from latentplan.rollout.solve import Solution


@dataclass(frozen=True)
class Prediction:
    """One trajectory and the problem that it answers.

    Attributes:
        index: the problem's place in the benchmark, from 0.
        sample: which of the problem's trajectories, from 0.
        question: in words.
        reference: the right answer.
        answer: the predicted answer, as its kind extracts it; None where there is none.
        correct: whether the two match.
        completion: what was written after the latents, without eos.
        plan: decoded steps (step decoder), written steps (CoT), or None.
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
        """The row that the JSONL file holds; `answer_kind` is left out when absent."""
        row = asdict(self)
        if self.answer_kind is None:
            del row["answer_kind"]
        return row


def predictions_of(index: int, problem: Problem, solutions: Sequence[Solution]) -> list[Prediction]:
    """The solutions of the problem at place `index`, judged."""
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
    """Whether each completion gives the answer of its problem, as the problem's kind of answer decides."""
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
