"""Equations of a chain, `<<16-3-4=9>>`: read exactly (fractions, never floats), evaluated and checked.

The text comes from a decoder that may write anything, so nothing here trusts it: no `eval`, no powers, and
limits on length and nesting. What cannot be read is None, or a ValueError that names the position.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MAX_LENGTH = 256
"""Longest expression, in characters, that is read."""
MAX_NESTING = 32
"""Deepest nesting of parentheses that is read."""

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)%?"
_TOKEN = re.compile(rf"(?P<number>{_NUMBER})|(?P<symbol>[-+*/()])")
_RESULT = re.compile(rf"[-\s]*{_NUMBER}(?:\s*/\s*[0-9]+)?\s*")
_BRACKETED = re.compile(r"<<([^<>]*)>>")
# One character for one, so that positions in error messages stay those of the text as written.
_SPELLINGS = str.maketrans({"x": "*", "X": "*", "×": "*", "·": "*", "÷": "/", "−": "-", "$": " "})


@dataclass(frozen=True, slots=True)
class Equation:
    """One step of a chain, `<<expression=result>>`.

    Attributes:
        expression: the text left of the equals sign, without surrounding blanks.
        result_text: the text right of it, as written: `"33.33"`.
        operands: every number of the expression, in order; a minus sign that is no subtraction belongs to
            its number.
        result: the value of `result_text`.
    """

    expression: str
    result_text: str
    operands: tuple[Fraction, ...]
    result: Fraction

    def is_true(self, modulus: int | None = None) -> bool:
        """Returns whether the expression has this result; False where it has no value (division by zero).

        A result with decimals may be the value rounded to the decimals given, `100/3=33.33`; one without is
        exact. With a modulus the two sides are compared as residues: `8+5=2` is true modulo 11.
        """
        try:
            value = evaluate(self.expression, modulus)
        except ValueError:
            return False
        if modulus is not None:
            return self.result.denominator == 1 and self.result % modulus == value
        return self.result == value or _is_rounded(value, self.result, self.result_text)


@lru_cache(maxsize=65536)
def parse_equation(step: str) -> Equation | None:
    """Returns the equation that a step consists of, `<<16-3-4=9>>` or `16-3-4=9`; None if it is anything
    else.

    The whole step has to be the equation: see `find_equations` for equations inside a sentence.
    """
    text = step.strip()
    bracketed = _BRACKETED.fullmatch(text)
    expression, equals, result_text = (bracketed.group(1) if bracketed else text).rpartition("=")
    expression, result_text = expression.strip(), result_text.strip()
    if not equals or not _RESULT.fullmatch(result_text.translate(_SPELLINGS)):
        return None
    try:
        operands = tuple(item.value for item in _postfix(expression) if isinstance(item, _Number))
        return Equation(expression, result_text, operands, evaluate(result_text))
    except ValueError:
        return None


def find_equations(text: str) -> list[Equation]:
    """Returns every readable equation in double angle brackets, in order, as GSM8K annotates its
    solutions.
    """
    found = (parse_equation(match.group(0)) for match in _BRACKETED.finditer(text))
    return [equation for equation in found if equation is not None]


def find_numbers(text: str) -> list[Fraction]:
    """Returns every number written in digits, in order, without its sign: `"$1,000 and 50%"` gives 1000 and
    1/2.
    """
    found = re.findall(_NUMBER, text)
    return [_number(digits) for digits in found if len(digits) <= MAX_LENGTH]


def evaluate(expression: str, modulus: int | None = None) -> Fraction:
    """Returns the exact value of an arithmetic expression; with a modulus, its residue in 0 … modulus − 1.

    Read are + − * / (also x × ÷), parentheses, unary minus, decimals (`.5`), percentages (`50%` is 1/2),
    commas in thousands, and `$`, which is ignored. With a modulus every value on the way has to be an
    integer, so a division has to come out exactly.

    Raises:
        ValueError: the text is no such expression, is longer or nested deeper than the limits, divides by
            zero, or leaves the integers under a modulus; the message names the position (from 0).
    """
    if modulus is not None and modulus < 1:
        raise ValueError(f"the modulus must be at least 1, not {modulus}")
    stack: list[Fraction] = []
    for item in _postfix(expression):
        if isinstance(item, _Number):
            stack.append(item.value)
        elif item.symbol == "negate":
            stack.append(-stack.pop())
        else:
            right, left = stack.pop(), stack.pop()
            if item.symbol == "/" and right == 0:
                raise _unreadable(expression, item.position, "division by zero")
            stack.append(_OPERATIONS[item.symbol](left, right))
        if modulus is not None and stack[-1].denominator != 1:
            raise _unreadable(expression, item.position, f"{stack[-1]} is no integer (modulo {modulus})")
    return stack[0] if modulus is None else stack[0] % modulus


class _Number(NamedTuple):
    value: Fraction
    position: int


class _Symbol(NamedTuple):
    symbol: str
    position: int


_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
}


def _postfix(expression: str) -> list[_Number | _Symbol]:
    if len(expression) > MAX_LENGTH:
        raise _unreadable(expression, MAX_LENGTH, f"longer than {MAX_LENGTH} characters")
    parser = _Parser(expression)
    parser.sum(nesting=0)
    if not parser.at_end():
        raise _unreadable(expression, parser.position, "expected an operator")
    return parser.output


class _Parser:
    """Recursive descent that writes postfix order, so that reading and evaluating stay apart."""

    def __init__(self, expression: str):
        self.expression = expression
        self.text = expression.translate(_SPELLINGS)
        self.position = 0
        self.output: list[_Number | _Symbol] = []

    def at_end(self) -> bool:
        self._skip_blanks()
        return self.position == len(self.text)

    def sum(self, nesting: int) -> None:
        self._chain(self._product, "+-", nesting)

    def _product(self, nesting: int) -> None:
        self._chain(self._signed, "*/", nesting)

    def _chain(self, part: Callable[[int], None], operators: str, nesting: int) -> None:
        part(nesting)
        while operator := self._take(operators):
            part(nesting)
            self.output.append(operator)

    def _signed(self, nesting: int) -> None:
        minus = None
        negative = False
        while sign := self._take("-"):
            minus, negative = sign, not negative
        self._atom(nesting)
        last = self.output[-1]
        if minus is None or not negative:
            return
        if isinstance(last, _Number):
            self.output[-1] = _Number(-last.value, last.position)
        else:
            self.output.append(_Symbol("negate", minus.position))

    def _atom(self, nesting: int) -> None:
        self._skip_blanks()
        start = self.position
        match = _TOKEN.match(self.text, start)
        if match and match["number"]:
            self.position = match.end()
            self.output.append(_Number(_number(match["number"]), start))
        elif self._take("("):
            if nesting == MAX_NESTING:
                raise _unreadable(self.expression, start, f"nested deeper than {MAX_NESTING}")
            self.sum(nesting + 1)
            if not self._take(")"):
                raise _unreadable(self.expression, self.position, "expected ')'")
        else:
            raise _unreadable(self.expression, start, "expected a number")

    def _take(self, symbols: str) -> _Symbol | None:
        self._skip_blanks()
        if self.position == len(self.text) or self.text[self.position] not in symbols:
            return None
        self.position += 1
        return _Symbol(self.text[self.position - 1], self.position - 1)

    def _skip_blanks(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1


def _number(text: str) -> Fraction:
    digits = text.rstrip("%").replace(",", "")
    return Fraction(digits) / (100 if text.endswith("%") else 1)


def _is_rounded(value: Fraction, result: Fraction, result_text: str) -> bool:
    """Returns whether `result` is `value` rounded to the decimals of its text (a half may go either way)."""
    decimals = re.search(r"\.([0-9]+)(%?)$", result_text)
    if not decimals or "/" in result_text or result == 0:
        return False
    unit = Fraction(1, 10 ** len(decimals.group(1))) / (100 if decimals.group(2) else 1)
    # GSM8K's results were printed by Python: 100/3=33.333333333333336, whose last digits are float noise.
    return abs(value - result) <= max(unit / 2, abs(value) / 10**14)


def _unreadable(expression: str, position: int, reason: str) -> ValueError:
    shown = expression if len(expression) <= 80 else expression[:80] + "…"
    return ValueError(f"cannot evaluate {shown!r}: {reason} at position {position}")
