"""`LatentTable`: the latent steps of a model on a set of problems, as arrays and rows without tensors.

What `evaluation.latent_rows` collects and pictures are drawn from. A *latent step* is the c latents that
stand for one step of the chain, one after another in one vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentplan.problems.answers import AnswerKind, kind_of


@dataclass(frozen=True)
class LatentRow:
    """One latent step that was used.

    Attributes:
        problem: place of its problem in the set.
        step: its place in the chain, from 1.
        text: what it says: as decoded, or of a model without a decoder the labelled step of this place; None
            where neither is there.
        sigma: its σ, the mean over dimensions; None where latents are points.
        correct: whether the answer after its chain is right.
    """

    problem: int
    step: int
    text: str | None
    sigma: float | None
    correct: bool


@dataclass(frozen=True)
class StopRow:
    """One decision of the stop head.

    Attributes:
        problem: place of the problem in the set.
        step: the latent step before which it was asked, from 1.
        probability: of stopping there.
        needed: labelled steps of the problem, at most K; 0 where there is no labelled chain.
    """

    problem: int
    step: int
    probability: float
    needed: int


@dataclass(frozen=True)
class SolvedProblem:
    """A problem with the model's answer and plan.

    Attributes:
        question: in words.
        reference: the right answer.
        answer: the predicted one; None where there is none.
        correct: whether they match.
        plan: the decoded steps; None without a decoder.
        modulus: of clock arithmetic, else None.
        answer_kind: the kind of answer, where the problem names one.
    """

    question: str
    reference: str
    answer: str | None
    correct: bool
    plan: list[str] | None
    modulus: int | None
    answer_kind: str | None = None

    @property
    def kind(self) -> AnswerKind:
        """The kind of answer."""
        return kind_of(self.reference, self.answer_kind)


@dataclass(frozen=True)
class LatentTable:
    """The latent steps of one model.

    Attributes:
        rows: one for each latent step.
        vectors: `[rows, c · hidden]` float32, the latents as used.
        means: `[rows, c · hidden]` float32, the μ that they were drawn around.
        stops: one for each decision of the stop head; empty without one.
        problems: the problems, in their order.
        decoded: whether the rows' texts come from a step decoder, rather than from labelled chains.
    """

    rows: Sequence[LatentRow]
    vectors: np.ndarray
    means: np.ndarray
    stops: Sequence[StopRow]
    problems: Sequence[SolvedProblem]
    decoded: bool

    def of_problems(self, places: Sequence[int]) -> LatentTable:
        """The latent steps of these problems only; `stops` and `problems` stay whole."""
        wanted = set(places)
        kept = [place for place, row in enumerate(self.rows) if row.problem in wanted]
        return LatentTable(
            [self.rows[place] for place in kept],
            self.vectors[kept],
            self.means[kept],
            self.stops,
            self.problems,
            self.decoded,
        )

    def spread(self, step: int) -> float | None:
        """Standard deviation of μ between problems at a step, the mean over dimensions; None of one row."""
        at = [place for place, row in enumerate(self.rows) if row.step == step]
        return float(self.means[at].std(axis=0).mean()) if len(at) > 1 else None
