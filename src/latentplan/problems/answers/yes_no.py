"""Answers yes or no, also written true or false."""

from __future__ import annotations

from latentplan.problems.answers.answer_kind import AnswerKind
from latentplan.problems.answers.extraction import normalise_answer


class YesNo(AnswerKind):
    """A truth value."""

    name = "yes_no"

    def accepts(self, reference: str) -> bool:
        """Whether it says yes, no, true or false."""
        return normalise_answer(reference) in ("yes", "no")
