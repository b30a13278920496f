"""`Problem`: a question, one chain of reasoning that leads to the answer, and the answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from latentplan.problems.answers.answer_kind import AnswerKind, kind_of

Chain = tuple[str, ...]


class DataError(ValueError):
    """A file, or a row of it, that cannot be read: says which file, which line, why, and what to do."""

    def __init__(self, reason: str, *, file: str | None = None, line: int | None = None):
        self.reason, self.file, self.line = reason, file, line
        location = ":".join(str(part) for part in (file, line) if part is not None)
        super().__init__(f"{location}: {reason}" if location else reason)


class UnknownFormatError(DataError):
    """Data whose columns tell no known format."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with a labelled chain of reasoning.

    Attributes:
        question: the question in words.
        steps: the labelled chain, in order; a step is an equation, `<<16-3-4=9>>`, or a sentence.
        answer: the final answer as text, `"9"`.
        plans: every valid chain, where the source knows them all (minigsm does); else None.
        modulus: arithmetic is modulo this number ('clock arithmetic'), so that modulo 11 `<<8+5=2>>` is true;
            else None.
        answer_kind: the name of the kind of answer, `"choice"`, see `answers.answer_kind_named`; None where
            the answer itself tells it.
    """

    question: str
    steps: Chain
    answer: str
    plans: tuple[Chain, ...] | None = None
    modulus: int | None = None
    answer_kind: str | None = None

    @property
    def kind(self) -> AnswerKind:
        """How its answer is found, compared, and led to. Raises ValueError if there is no such kind."""
        return kind_of(self.answer, self.answer_kind)

    @property
    def key(self) -> str:
        """A stable 16-digit fingerprint of the normalised question, for splits and overlap checks."""
        return hashlib.sha256(normalise_question(self.question).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Returns the row that latentplan's own JSONL format holds; optional fields are left out when
        absent.
        """
        row: dict[str, Any] = {"question": self.question, "steps": list(self.steps), "answer": self.answer}
        if self.plans is not None:
            row["plans"] = [list(plan) for plan in self.plans]
        if self.modulus is not None:
            row["modulus"] = self.modulus
        if self.answer_kind is not None:
            row["answer_kind"] = self.answer_kind
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Problem:
        """Returns the inverse of `to_json`. Raises KeyError or TypeError on rows of another shape."""
        plans = row.get("plans")
        return cls(
            question=row["question"],
            steps=_chain(row["steps"]),
            answer=str(row["answer"]),
            plans=None if plans is None else tuple(_chain(plan) for plan in plans),
            modulus=row.get("modulus"),
            answer_kind=row.get("answer_kind"),
        )


def _chain(steps: Iterable[str]) -> Chain:
    if isinstance(steps, str):
        raise TypeError("'steps' must be a list of strings, not one string")
    return tuple(steps)


def normalise_question(question: str) -> str:
    """Lower case, words and digits only, single spaces: equal for questions that differ only in layout."""
    return " ".join(re.findall(r"[^\W\d_]+|\d+", question.lower()))
