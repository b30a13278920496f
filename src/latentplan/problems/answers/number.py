r"""Answers that are one number: `18`, `-$1,080.50`, `3/4`.

answers_match("18 dollars", "18.0")       True        as numbers
answers_match("9*2", "18")                False       arithmetic left undone is no number
answers_match(r"\sqrt{8}", "2\sqrt{2}")   True        as mathematics
answers_match("Yes.", "yes")              True        as text
"""

from __future__ import annotations

import re

from latentplan.problems.answers.answer_kind import AnswerKind
from latentplan.problems.answers.expression import same_expression
from latentplan.problems.answers.quantities import numbers_match, parse_number

_NAMED = re.compile(r"^[\s$]*[A-Za-z](?:_?\{?\w\}?)?\s*=(?!=)")
"""The name that an answer gives to the unknown, `x = 5`."""


class Number(AnswerKind):
    """One number, compared exactly; the result of a chain of equations."""

    name = "number"
    computed = True

    def accepts(self, reference: str) -> bool:
        """Whether `parse_number` reads it."""
        return parse_number(reference) is not None

    def matches(self, predicted: str, reference: str) -> bool:
        """See `answers_match`."""
        return answers_match(predicted, reference)


NUMBER = Number()
"""Reads every answer of which nobody has said the kind: as a number, else as text, else as a formula."""


def answers_match(predicted: str, reference: str) -> bool:
    """Whether `predicted` is the answer `reference`.

    Where the reference is a number, so must be the prediction (see `parse_number`, `numbers_match`): what
    would have to be computed first, or an equation, is no answer. Other references are compared as text (see
    `normalise_answer`), else, where both read as formulas, as mathematics through math-verify. Safe to call
    from any thread.

    Raises:
        ImportError: math-verify is needed and missing.
    """
    expected = parse_number(reference)
    number = parse_number(_NAMED.sub("", predicted, count=1))
    if expected is not None:
        return number is not None and numbers_match(number, expected)
    return same_expression(predicted, reference)
