"""Kinds of answers: how one is found in a completion, when it is right, and what of a plan leads to it.

A kind is a class in a file of this folder, or `package.module:Name` of the user's own. A problem names its
kind, or its reference tells it:

    kind_of("9").name                       "number"
    kind_of("Ann is a zorp.").name          "text"
    kind_of("E", "choice").is_correct("### (E)", "E")       True
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from fractions import Fraction
from functools import cache, lru_cache
from typing import ClassVar

from latentplan.common.plugins import import_named, modules_of, names_own_code
from latentplan.problems.answers.extraction import extract_answer, normalise_answer
from latentplan.problems.answers.quantities import numbers_match, parse_number

_PACKAGE = "latentplan.problems.answers"
_TOLD_BY_REFERENCE = ("number", "yes_no", "expression", "text")
"""The kinds that a reference tells, the first that accepts it."""


class AnswerKind:
    """The contract of a kind of answer; what it says here holds for answers in words.

    Attributes:
        name: what data calls it.
        computed: whether an equation of a plan can have such an answer as its result. Where not, scores of
            equations do not apply to plans without any.
    """

    name: ClassVar[str]
    computed: ClassVar[bool] = False

    def accepts(self, reference: str) -> bool:
        """Whether a text can be the reference answer of such a problem."""
        return bool(reference.strip())

    def extract(self, completion: str) -> str | None:
        """The answer that a completion gives behind the marker (strict, see `extract_answer`), else None."""
        return extract_answer(completion)

    def matches(self, predicted: str, reference: str) -> bool:
        """Whether an extracted answer is the reference: here, whether the two are equal but for layout."""
        return normalise_answer(predicted) == normalise_answer(reference)

    def number(self, answer: str) -> Fraction | None:
        """The number that a plan has to arrive at; None where the answer is no number."""
        return parse_number(answer)

    def is_conclusion(self, answer: str) -> bool:
        """Whether the answer does not stand in the plan, but is concluded from its last step."""
        return normalise_answer(answer) in ("yes", "no")

    def is_correct(self, completion: str, reference: str) -> bool:
        """Whether a completion gives the reference answer."""
        predicted = self.extract(completion)
        return predicted is not None and self.matches(predicted, reference)

    def is_result(self, result: Fraction | None, answer: str | None) -> bool:
        """Whether the result of an equation is the answer."""
        number = None if answer is None else self.number(answer)
        return result is not None and number is not None and numbers_match(result, number)

    def vote(self, answer: str) -> Hashable:
        """What is equal for answers that are the same: numbers by value, other texts but for layout."""
        number = self.number(answer)
        return normalise_answer(answer) if number is None else number


@cache
def answer_kinds() -> Mapping[str, AnswerKind]:
    """The built-in kinds by name."""
    kinds = [
        member()
        for module in modules_of(_PACKAGE)
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, AnswerKind)
        and member.__module__ == module.__name__
        if member is not AnswerKind
    ]
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: kind.name)}


@cache
def answer_kind_named(name: str) -> AnswerKind:
    """The kind called `name`: a built-in one, or `package.module:Name`.

    Raises:
        ValueError: there is no such kind; the message lists what there is.
    """
    if name in answer_kinds():
        return answer_kinds()[name]
    found = import_named(name, "kind of answer", None) if names_own_code(name) else None
    if not (isinstance(found, type) and issubclass(found, AnswerKind)):
        raise ValueError(
            f"there is no kind of answer {name!r}; choose from: {', '.join(answer_kinds())}, or name a "
            "subclass of AnswerKind as 'package.module:Name'"
        )
    return found()


def kind_of(reference: str | None, name: str | None = None) -> AnswerKind:
    """The kind of answer called `name`, else the one that a reference answer tells.

    Without either it is `number`, which reads what it cannot compare as numbers as formulas or as text.

    Raises:
        ValueError: there is no kind of this name.
    """
    return answer_kind_named(name) if name else _told_by(reference or "")


def kind_in_file(reference: str | None, name: object) -> AnswerKind:
    """As `kind_of`, with a name that stands in a file: one that is no built-in kind is never imported."""
    return kind_of(reference, name if isinstance(name, str) and name in answer_kinds() else None)


@lru_cache(maxsize=65536)
def _told_by(reference: str) -> AnswerKind:
    if not reference.strip():
        return answer_kind_named(_TOLD_BY_REFERENCE[0])
    kinds = map(answer_kind_named, _TOLD_BY_REFERENCE)
    return next(kind for kind in kinds if kind.accepts(reference))
