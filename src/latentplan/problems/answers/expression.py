r"""Answers that are formulas, `2\sqrt{2}`: compared as text, else as mathematics through math-verify."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

from latentplan.problems.answers.answer_kind import AnswerKind
from latentplan.problems.answers.extraction import normalise_answer

_MATHEMATICS = re.compile(
    r"(?:\\(?:pi|cdot|times|div|left|right|pm|infty|circ|[%$,;:! ])(?![A-Za-z])"
    r"|\\[dt]?frac(?=\s*[{\d])|\\sqrt(?=\s*[{[\d])|\\(?:text|mathrm)\{[^{}]*\}|(?:pi|sqrt)(?![A-Za-z])|(?<![A-Za-z])[A-Za-z](?![A-Za-z])"
    r"|(?<!\d)\d{1,20}(?!\d)|[-+*/=^_(){}\[\]<>.,%°π√\s])+",
    re.ASCII,
)
_POWER = re.compile(r"\^|\*\*")
_SMALL_POWER = re.compile(
    r"(?:(?<=\w)(?:\^|\*\*)\s*(?:\w{1,2}|\{-?\w{1,2}(?:/\d{1,2})?\}|\(-?\w{1,2}(?:/\d{1,2})?\))"
    r"|(?:\^|\*\*)\s*(?:[0-3]|\{[0-3]\}))(?![\w^*({])"
)
_MAX_MATHEMATICS_LENGTH, _MAX_POWERS, _MAX_BRACKETS = 100, 2, 8


class Expression(AnswerKind):
    """Short arithmetic or algebra. Equations can have it as their result where it is a number."""

    name = "expression"
    computed = True

    def accepts(self, reference: str) -> bool:
        """Whether math-verify may read it, see `_is_formula`."""
        return _is_formula(reference)

    def matches(self, predicted: str, reference: str) -> bool:
        """Whether the two are equal as text, or as mathematics."""
        return same_expression(predicted, reference)


def same_expression(predicted: str, reference: str) -> bool:
    """Whether two texts are equal (see `normalise_answer`), or both formulas that are equal.

    Raises:
        ImportError: math-verify is needed and missing.
    """
    if normalise_answer(predicted) == normalise_answer(reference):
        return True
    return _is_formula(predicted) and _is_formula(reference) and _same_mathematics(predicted, reference)


def _is_formula(text: str) -> bool:
    """Whether `text` is short arithmetic or algebra that sympy evaluates in no time.

    Words would be read as products of letters ('no' equals 'on'), and no timeout can interrupt a tower of
    powers, so neither may reach math-verify.
    """
    text = text.strip().strip("$")
    if not text or len(text) > _MAX_MATHEMATICS_LENGTH or not _MATHEMATICS.fullmatch(text):
        return False
    if not _is_balanced(text):
        return False
    powers, brackets = len(_POWER.findall(text)), sum(map(text.count, "([{"))
    return brackets <= _MAX_BRACKETS and powers <= _MAX_POWERS and powers == len(_SMALL_POWER.findall(text))


def _is_balanced(text: str) -> bool:
    """Whether brackets close in their order: of what is malformed math-verify reads a part."""
    waiting: list[str] = []
    for symbol in text:
        if symbol in "([{":
            waiting.append({"(": ")", "[": "]", "{": "}"}[symbol])
        elif symbol in ")]}" and (not waiting or waiting.pop() != symbol):
            return False
    return not waiting


def _same_mathematics(predicted: str, reference: str) -> bool:
    # math-verify's timeouts are signals, which only the main thread may set; `_is_formula` bounds the work.
    parse, verify = _math_verify()
    gold, answer = (
        parse(f"${text.strip().strip('$')}$", parsing_timeout=None) for text in (reference, predicted)
    )
    return bool(verify(gold, answer, timeout_seconds=None)) and _are_close(gold, answer)


def _are_close(gold: list[Any], answer: list[Any]) -> bool:
    """Whether two parsed formulas that are numbers are equal: as decimals, to a millionth of their size.

    math-verify rounds to six places after the point, where all small numbers are equal.
    """
    from sympy import Float

    found = [next((e for e in parsed if getattr(e, "is_number", False)), None) for parsed in (gold, answer)]
    numbers = [each.doit() for each in found if each is not None]  # 50% is read as a product that stands
    if len(numbers) < 2:
        return True
    first, second = numbers
    room = 10**6 if first.has(Float) or second.has(Float) else 10**20
    size = max(abs(first.evalf(30)), abs(second.evalf(30)))
    return bool(abs((first - second).evalf(30)) <= size / room)


@cache
def _math_verify() -> tuple[Any, Any]:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ImportError("comparing formulas needs math-verify: pip install math-verify") from error
    # It warns about the missing timeout and reports every text that it cannot parse, which is no error here.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return parse, verify
