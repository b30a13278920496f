"""The kinds of number in a story template, and how each is written in a question.

Numbers are drawn in the order of the story, so a kind can depend on a quantity that is already there:
`below total` never takes away more than there is, `divisor of total from 2 to 9` always shares out evenly.
`FORMS` lists how a template writes each kind.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from typing import Any, Protocol

from latentplan.problems.minigsm.expression_graph import Value, exact
from latentplan.problems.minigsm.solution_chains import number_text

Values = Mapping[str, Value]

CONSTANTS: dict[int, tuple[str, ...]] = {
    2: ("two", "twice", "half", "doubles", "rectangle", "rectangular"),
    3: ("three", "third"),
    4: ("four", "quarter"),
    5: ("five", "fifth"),
    10: ("tenth",),
    12: ("dozen",),
    60: ("hours",),
    100: ("%",),
}
"""Numbers that a chain may use although the question has them only in words, and those words."""


@dataclass(frozen=True, slots=True)
class NumberSettings:
    """What a number may be: the scale of its range, the largest one, and whether amounts have decimals."""

    scale: int = 1
    largest: int = 1000
    decimals: bool = False


class Number(Protocol):
    """A kind of number."""

    may_be_decimal: bool

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> Value | None:
        """Returns a number that suits the story so far, or None where there is none."""

    def text(self, value: Value) -> str:
        """Writes the number as the question has it."""


def _between(rng: random.Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


@dataclass(frozen=True, slots=True)
class _Whole:
    may_be_decimal = False

    def text(self, value: Value) -> str:
        """Writes digits."""
        return str(value)


@dataclass(frozen=True, slots=True)
class WholeNumber(_Whole):
    """A whole number of a range; with `scales`, the setting for the size of numbers widens it."""

    low: int
    high: int
    scales: bool = True

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int | None:
        """Draws uniformly from the range."""
        high = min(self.high * settings.scale if self.scales else self.high, settings.largest)
        return _between(rng, self.low, high) if high >= self.low else None


@dataclass(frozen=True, slots=True)
class Multiple(_Whole):
    """A multiple of `of`, from `low * of` to `high * of`."""

    of: int
    low: int
    high: int

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int | None:
        """Draws uniformly from the multiples."""
        high = min(self.high * settings.scale, settings.largest // self.of)
        return self.of * _between(rng, self.low, high) if high >= self.low else None


@dataclass(frozen=True, slots=True)
class Below(_Whole):
    """A whole number from 2 to one less than a quantity, at most `share` of a hundred of it."""

    quantity: str
    share: int

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int | None:
        """Draws uniformly from what is there."""
        high = int(values[self.quantity] * self.share) // 100
        return _between(rng, 2, high) if high >= 2 else None


@dataclass(frozen=True, slots=True)
class Above(_Whole):
    """A whole number that is larger than a quantity by `low` to `high`."""

    quantity: str
    low: int
    high: int

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int | None:
        """Draws uniformly from the margin."""
        value = int(values[self.quantity]) + _between(rng, self.low, self.high * settings.scale)
        return value if value <= settings.largest else None


@dataclass(frozen=True, slots=True)
class Divisor(_Whole):
    """A whole number from `low` to `high` that divides a quantity without rest, and leaves more than 1."""

    quantity: str
    low: int
    high: int

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int | None:
        """Draws uniformly from the divisors."""
        whole = values[self.quantity]
        if not isinstance(whole, int):
            return None
        found = [n for n in range(self.low, min(self.high, whole // 2) + 1) if not whole % n]
        return found[int(rng.random() * len(found))] if found else None


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of dollars, with cents when decimals are on; the template writes the sign, `${price}`."""

    low: int
    high: int
    may_be_decimal = True

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> Value | None:
        """Draws uniformly from whole dollars, or from steps of ten and twenty-five cents."""
        high = min(self.high * settings.scale, settings.largest)
        if high < self.low:
            return None
        dollars = _between(rng, self.low, high)
        if not settings.decimals or rng.random() < 0.3:
            return dollars
        return exact(dollars + Fraction(rng.choice((10, 20, 25, 40, 50, 50, 60, 75, 80, 90)), 100))

    def text(self, value: Value) -> str:
        """Writes whole dollars without cents, others with two digits of them."""
        return str(value) if isinstance(value, int) else f"{float(value):.2f}"


@dataclass(frozen=True, slots=True)
class Measure:
    """A length, weight or time, with halves when decimals are on."""

    low: int
    high: int
    may_be_decimal = True

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> Value | None:
        """Draws uniformly from whole numbers, or from halves."""
        high = min(self.high * settings.scale, settings.largest)
        if high < self.low:
            return None
        whole = _between(rng, self.low, high)
        return whole + Fraction(1, 2) if settings.decimals and rng.random() < 0.5 else whole

    def text(self, value: Value) -> str:
        """Writes at most one decimal."""
        return number_text(value)


@dataclass(frozen=True, slots=True)
class Note(_Whole):
    """Round money that covers a quantity: a ten, twenty, fifty, or a multiple of a hundred."""

    quantity: str

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int | None:
        """Returns the smallest that leaves some change."""
        owed = values[self.quantity]
        paid = next((n for n in (10, 20, 50, 100) if n > owed), (int(owed) // 100 + 1) * 100)
        return paid if paid <= settings.largest else None


@dataclass(frozen=True, slots=True)
class Rate(_Whole):
    """A percentage of a quantity that comes out whole; the template writes the sign, `{off}%`."""

    quantity: str
    choices: tuple[int, ...]

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int | None:
        """Draws uniformly from the percentages that fit."""
        whole = values[self.quantity]
        found = [share for share in self.choices if not whole * share % 100]
        return found[int(rng.random() * len(found))] if found else None


_TIMES = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}
_PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 10: "a tenth"}


@dataclass(frozen=True, slots=True)
class Times:
    """A factor in words, `{k} as many`: twice, three times, ..."""

    low: int
    high: int
    may_be_decimal = False

    def __post_init__(self) -> None:
        if not {self.low, self.high} <= set(_TIMES):
            raise ValueError(f"there are words for {min(_TIMES)} to {max(_TIMES)} times only")

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int:
        """Draws uniformly from the range."""
        return _between(rng, self.low, self.high)

    def text(self, value: Value) -> str:
        """Returns the word."""
        return _TIMES[int(value)]


@dataclass(frozen=True, slots=True)
class PartOf:
    """The divisor of a part in words that comes out whole, `{k} of the eggs`: half, a third, ..."""

    quantity: str
    may_be_decimal = False

    def draw(self, rng: random.Random, values: Values, settings: NumberSettings) -> int | None:
        """Draws uniformly from the parts that fit."""
        whole = values[self.quantity]
        found = [n for n in _PARTS if not whole % n and whole > n]
        return found[int(rng.random() * len(found))] if found else None

    def text(self, value: Value) -> str:
        """Returns the words."""
        return _PARTS[int(value)]


def _multiples(of: int, low: int, high: int) -> Multiple:
    if of < 1 or low % of or high % of:
        raise ValueError(f"{low} and {high} are not both multiples of {of}")
    return Multiple(of, low // of, high // of)


FORMS: dict[str, Callable[..., Number]] = {
    "number {low} to {high}": WholeNumber,
    "small {low} to {high}": partial(WholeNumber, scales=False),
    "multiple of {of} from {low} to {high}": _multiples,
    "below {quantity}": partial(Below, share=70),
    "at most {share}% of {quantity}": Below,
    "above {quantity} by {low} to {high}": Above,
    "divisor of {quantity} from {low} to {high}": Divisor,
    "money {low} to {high}": Money,
    "measure {low} to {high}": Measure,
    "note above {quantity}": Note,
    "rate of {quantity} among {choices}": Rate,
    "times {low} to {high}": Times,
    "part of {quantity}": PartOf,
}
"""How a template writes each kind of number; a quantity is the running total or any number so far."""


def read_number(text: str) -> Number:
    """Returns the kind of number that one of `FORMS` describes, such as `number 2 to 9` or `below total`.

    Raises ValueError on text of any other form, and on a range that is empty.
    """
    written = " ".join(text.split())
    for form, make in FORMS.items():
        if found := _pattern(form).fullmatch(written):
            fields = {name: _field(name, value) for name, value in found.groupdict().items()}
            if fields.get("low", 0) > fields.get("high", fields.get("low", 0)):
                raise ValueError(f"the range of {text!r} is empty")
            return make(**fields)
    raise ValueError(f"{text!r} is no kind of number; write one of: {', '.join(FORMS)}")


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """Returns a form as a pattern: `{quantity}` is a name, `{choices}` are numbers, all others are one
    number.
    """
    values = {"quantity": r"[A-Za-z_]\w*", "choices": r"[0-9]+( [0-9]+)*"}
    return re.compile(
        re.sub(r"\{(\w+)\}", lambda name: f"(?P<{name[1]}>{values.get(name[1], '[0-9]+')})", form)
    )


def _field(name: str, value: str) -> Any:
    if name == "choices":
        return tuple(int(choice) for choice in value.split())
    return value if name == "quantity" else int(value)
