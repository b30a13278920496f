"""From a formula, prefix or infix, to a chain of `<<a*b=c>>` steps in the order of evaluation.

    chain_of(prefix_formula(["*", "-", "10", "2", "4"]))      ("<<10-2=8>>", "<<8*4=32>>")
    chain_of(infix_formula("( 10.0 - ( 2.0 + 4.0 ) )"))       ("<<2+4=6>>", "<<10-6=4>>")

Every step is true as written: a quotient without a short decimal stays inside the step that uses it,
`<<(46/78)*100=58.9744>>`, instead of handing on a rounded number.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from latentplan.problems.problem import Chain, DataError

_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_NUMBER = re.compile(r"[-+]?[0-9]{1,20}(\.[0-9]{0,20})?")
_MAX_OPERATIONS = 50
_EXACT_DECIMALS, _ROUNDED_DIGITS = 8, 4


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator, one of + - * /, with two operands, each a number or an operation again."""

    operator: str
    left: Formula
    right: Formula


Formula = Fraction | Operation


def prefix_formula(tokens: Sequence[str]) -> Formula:
    """The formula that tokens in prefix notation spell. Raises DataError if they spell none, or several."""
    _check_length(tokens)
    stack: list[Formula] = []
    for token in reversed(tokens):
        if token not in _OPERATIONS:
            stack.append(_number(token, tokens))
        elif len(stack) < 2:
            raise _unreadable(tokens, f"{token!r} lacks an operand")
        else:
            stack.append(Operation(token, stack.pop(), stack.pop()))
    if len(stack) != 1:
        raise _unreadable(tokens, f"expected one formula, found {len(stack)}")
    return stack[0]


def infix_formula(text: str) -> Formula:
    """The formula of a fully parenthesised text, `( ( 4 - 2 ) + 3 )`. Raises DataError if it is none."""
    tokens = text.split()
    _check_length(tokens)
    stack: list[Formula | str] = []
    for token in tokens:
        if token == ")":
            stack[-4:] = [_parenthesised(stack[-4:], tokens)]
        elif token == "(" or token in _OPERATIONS:
            stack.append(token)
        else:
            stack.append(_number(token, tokens))
    if len(stack) != 1 or isinstance(stack[0], str):
        raise _unreadable(tokens, "expected one formula in parentheses")
    return stack[0]


def chain_of(formula: Formula) -> Chain:
    """One step an operation, inner ones first, left before right; a bare number needs none.

    Raises:
        DataError: the formula divides by zero.
    """
    if isinstance(formula, Fraction):
        return ()
    steps: list[str] = []
    value, expression = _evaluate(formula, steps)
    return (*steps, _step(expression, value))


def number_text(value: Fraction) -> str:
    """A number in decimals: exact where eight decimals suffice, else rounded to four (or to four digits)."""
    if value.denominator == 1:
        return str(value.numerator)
    if _is_exact(value):
        return _fixed(value, _EXACT_DECIMALS).rstrip("0")
    decimals = _ROUNDED_DIGITS
    while abs(value) * 10**decimals < 10 ** (_ROUNDED_DIGITS - 1):
        decimals += 1
    return _fixed(value, decimals)


def _evaluate(operation: Operation, steps: list[str]) -> tuple[Fraction, str]:
    """Value and text of an operation, after the steps of its operands have been appended."""
    left, left_text = _operand(operation.left, steps)
    right, right_text = _operand(operation.right, steps)
    if operation.operator == "/" and right == 0:
        raise DataError("the equation divides by zero")
    return _OPERATIONS[operation.operator](left, right), f"{left_text}{operation.operator}{right_text}"


def _operand(formula: Formula, steps: list[str]) -> tuple[Fraction, str]:
    if isinstance(formula, Fraction):
        return formula, number_text(formula)
    value, expression = _evaluate(formula, steps)
    if not _is_exact(value):
        return value, f"({expression})"
    steps.append(_step(expression, value))
    return value, number_text(value)


def _step(expression: str, value: Fraction) -> str:
    return f"<<{expression}={number_text(value)}>>"


def _is_exact(value: Fraction) -> bool:
    return (value * 10**_EXACT_DECIMALS).denominator == 1


def _fixed(value: Fraction, decimals: int) -> str:
    digits = str(abs(round(value * 10**decimals))).rjust(decimals + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-decimals]}.{digits[-decimals:]}"


def _parenthesised(parts: list[Formula | str], tokens: Sequence[str]) -> Operation:
    match parts:
        case ["(", Fraction() | Operation() as left, str(sign), Fraction() | Operation() as right] if (
            sign != "("
        ):
            return Operation(sign, left, right)
    raise _unreadable(tokens, "expected ( a + b ), with spaces between")


def _number(token: str, tokens: Sequence[str]) -> Fraction:
    if not _NUMBER.fullmatch(token):
        raise _unreadable(tokens, f"{token!r} is neither a number nor one of + - * /")
    return Fraction(token)


def _check_length(tokens: Sequence[str]) -> None:
    if sum(token in _OPERATIONS for token in tokens) > _MAX_OPERATIONS:
        raise _unreadable(tokens, f"more than {_MAX_OPERATIONS} operators")


def _unreadable(tokens: Sequence[str], reason: str) -> DataError:
    shown = " ".join(tokens)
    return DataError(
        f"cannot read the equation {shown if len(shown) <= 60 else shown[:60] + '…'!r}: {reason}"
    )
