"""Typed access to a row's columns, and chains from rationales.

An accessor gives the value, or raises a `DataError` that says what is wrong with which column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from latentplan.problems.answers import normalise_answer, parse_number
from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import Chain, DataError

ANNOTATION = re.compile(r"<<[^<>]*>>")
"""A calculator annotation of a rationale."""


def text_column(row: Row, column: str) -> str:
    """A text, stripped. Raises DataError if it is missing, no text, or empty."""
    return _text(_value(row, column), column, "text")


def texts_column(row: Row, column: str) -> Chain:
    """A list of texts, each stripped. Raises DataError if it is missing or holds anything else."""
    value = _value(row, column)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _wrong_type(column, "a list of texts", value)
    return tuple(_text(item, column, "a list of texts, each") for item in value)


def number_column(row: Row, column: str) -> str:
    """A number, or a text that is one, without thousands commas and idle decimals: `9.0` and `"9"` are `"9"`.

    Floats keep 15 significant digits, which is all that they are sure of.

    Raises:
        DataError: it is missing or no number.
    """
    value = _value(row, column)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong_type(column, "a number", value)
    if isinstance(value, float) and math.isfinite(value):
        return plain_number(format(Decimal(f"{value:.15g}"), "f"), column)
    return plain_number(str(value), column)


def plain_number(text: str, column: str) -> str:
    """A number's text without thousands commas and idle decimals. Raises DataError if it is no number."""
    number = parse_number(text)
    refuse_not_finite(text, column)
    if number is None:
        raise DataError(f"column {column!r} holds {text.strip()!r}, which is not a number")
    return str(number) if number.denominator == 1 else text.replace(",", "").strip()


def refuse_not_finite(text: str, column: str) -> None:
    """Raises DataError where a text is what programs write for numbers that are none."""
    found = {"nan": "NaN", "inf": "Infinity", "infinity": "Infinity"}.get(text.strip().lower().lstrip("+-"))
    if found:
        raise DataError(f"column {column!r} holds {found}, which is not a number")


def fraction_column(row: Row, column: str) -> Fraction:
    """The exact value of `number_column`. Raises DataError if it is no number."""
    number = parse_number(number_column(row, column))
    if number is None:
        raise DataError(f"column {column!r} is not a number")
    return number


def yes_or_no_column(row: Row, column: str) -> str:
    """A truth value, or a text that is one, as `"yes"` or `"no"`. Raises DataError if it is anything else."""
    value = _value(row, column)
    answer = normalise_answer(str(value)) if isinstance(value, bool | str) else None
    if answer not in ("yes", "no"):
        raise _wrong_type(column, "true or false", value)
    return answer


def equation_chain(rationale: str) -> Chain:
    """The calculator annotations of a rationale, `<<16-3=13>>`; a rationale without any has no steps."""
    return tuple(ANNOTATION.findall(rationale))


def sentence_chain(rationale: str) -> Chain:
    """The lines of a rationale, without its calculator annotations."""
    lines = (ANNOTATION.sub("", line).strip() for line in rationale.splitlines())
    return tuple(line for line in lines if line)


def _value(row: Row, column: str) -> object:
    if column not in row:
        raise DataError(f"column {column!r} is missing (found: {', '.join(map(str, row)) or 'none'})")
    return row[column]


def _text(value: object, column: str, expected: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(column, expected, value)
    if not value.strip():
        raise DataError(f"column {column!r} holds an empty text")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON may escape half a character, which no tokenizer takes
        raise DataError(f"column {column!r} holds half a character: {error}") from None
    return value.strip()


def _wrong_type(column: str, expected: str, value: object) -> DataError:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:40] + "…"
    return DataError(f"column {column!r} must be {expected}, not {type(value).__name__} {shown}")
