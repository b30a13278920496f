"""The kinds of number that a template asks for, and how each is written in a question.

Numbers are drawn in the order of the story, so a kind can depend on a quantity that is already there:
`below("total")` never takes away more than there is, `divisor("total")` always shares out evenly.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

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
class Dials:
    """What a number may be: the scale of its range, the largest one, and whether amounts have decimals."""

    scale: int = 1
    largest: int = 1000
    decimals: bool = False


class Number(Protocol):
    """A kind of number."""

    may_be_decimal: bool

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> Value | None:
        """A number that suits the story so far, or None where there is none."""

    def text(self, value: Value) -> str:
        """How the question writes it."""


def _between(rng: random.Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


@dataclass(frozen=True, slots=True)
class _Whole:
    may_be_decimal = False

    def text(self, value: Value) -> str:
        """Digits."""
        return str(value)


@dataclass(frozen=True, slots=True)
class number(_Whole):  # noqa: N801 - read as a word in the templates
    """A whole number of a range; with `scales`, the dial for the size of numbers widens it."""

    low: int
    high: int
    scales: bool = True

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int | None:
        """Uniform over the range."""
        high = min(self.high * dials.scale if self.scales else self.high, dials.largest)
        return _between(rng, self.low, high) if high >= self.low else None


def small(low: int, high: int) -> number:
    """A whole number that stays in its range whatever the dials, such as the days of a week."""
    return number(low, high, scales=False)


@dataclass(frozen=True, slots=True)
class multiple(_Whole):  # noqa: N801
    """A multiple of `of`, from `low * of` to `high * of`."""

    of: int
    low: int
    high: int

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int | None:
        """Uniform over the multiples."""
        high = min(self.high * dials.scale, dials.largest // self.of)
        return self.of * _between(rng, self.low, high) if high >= self.low else None


@dataclass(frozen=True, slots=True)
class below(_Whole):  # noqa: N801
    """A whole number from 2 to one less than a quantity, at most `share` of a hundred of it."""

    quantity: str
    share: int = 70

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int | None:
        """Uniform over what is there."""
        high = int(values[self.quantity] * self.share) // 100
        return _between(rng, 2, high) if high >= 2 else None


@dataclass(frozen=True, slots=True)
class above(_Whole):  # noqa: N801
    """A whole number that is larger than a quantity by `low` to `high`."""

    quantity: str
    low: int = 2
    high: int = 30

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int | None:
        """Uniform over the margin."""
        value = int(values[self.quantity]) + _between(rng, self.low, self.high * dials.scale)
        return value if value <= dials.largest else None


@dataclass(frozen=True, slots=True)
class divisor(_Whole):  # noqa: N801
    """A whole number from `low` to `high` that divides a quantity without rest, and leaves more than 1."""

    quantity: str
    low: int = 2
    high: int = 12

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int | None:
        """Uniform over the divisors."""
        whole = values[self.quantity]
        if not isinstance(whole, int):
            return None
        found = [n for n in range(self.low, min(self.high, whole // 2) + 1) if not whole % n]
        return found[int(rng.random() * len(found))] if found else None


@dataclass(frozen=True, slots=True)
class money:  # noqa: N801
    """An amount of dollars, with cents when decimals are on; the template writes the sign, `${price}`."""

    low: int
    high: int
    scales: bool = True
    may_be_decimal = True

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> Value | None:
        """Uniform over whole dollars, or over steps of ten and twenty-five cents."""
        high = min(self.high * dials.scale if self.scales else self.high, dials.largest)
        if high < self.low:
            return None
        dollars = _between(rng, self.low, high)
        if not dials.decimals or rng.random() < 0.3:
            return dollars
        return exact(dollars + Fraction(rng.choice((10, 20, 25, 40, 50, 50, 60, 75, 80, 90)), 100))

    def text(self, value: Value) -> str:
        """Whole dollars without cents, others with two digits of them."""
        return str(value) if isinstance(value, int) else f"{float(value):.2f}"


@dataclass(frozen=True, slots=True)
class measure:  # noqa: N801
    """A length, weight or time, with halves when decimals are on."""

    low: int
    high: int
    may_be_decimal = True

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> Value | None:
        """Uniform over whole numbers, or over halves."""
        high = min(self.high * dials.scale, dials.largest)
        if high < self.low:
            return None
        whole = _between(rng, self.low, high)
        return whole + Fraction(1, 2) if dials.decimals and rng.random() < 0.5 else whole

    def text(self, value: Value) -> str:
        """At most one decimal."""
        return number_text(value)


@dataclass(frozen=True, slots=True)
class note(_Whole):  # noqa: N801
    """Round money that covers a quantity: a ten, twenty, fifty, or a multiple of a hundred."""

    quantity: str

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int | None:
        """The smallest that leaves some change."""
        owed = values[self.quantity]
        paid = next((n for n in (10, 20, 50, 100) if n > owed), (int(owed) // 100 + 1) * 100)
        return paid if paid <= dials.largest else None


@dataclass(frozen=True, slots=True)
class rate(_Whole):  # noqa: N801
    """A percentage of a quantity that comes out whole; the template writes the sign, `{off}%`."""

    quantity: str
    choices: tuple[int, ...] = (5, 10, 20, 25, 30, 40, 50, 60, 75)

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int | None:
        """Uniform over the percentages that fit."""
        whole = values[self.quantity]
        found = [share for share in self.choices if not whole * share % 100]
        return found[int(rng.random() * len(found))] if found else None


_TIMES = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}
_PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 10: "a tenth"}


@dataclass(frozen=True, slots=True)
class times:  # noqa: N801
    """A factor in words, `{k} as many`: twice, three times, ..."""

    low: int = 2
    high: int = 4
    may_be_decimal = False

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int:
        """Uniform over the range."""
        return _between(rng, self.low, self.high)

    def text(self, value: Value) -> str:
        """The word."""
        return _TIMES[int(value)]


@dataclass(frozen=True, slots=True)
class part_of:  # noqa: N801
    """The divisor of a part in words that comes out whole, `{k} of the eggs`: half, a third, ..."""

    quantity: str
    may_be_decimal = False

    def draw(self, rng: random.Random, values: Values, dials: Dials) -> int | None:
        """Uniform over the parts that fit."""
        whole = values[self.quantity]
        found = [n for n in _PARTS if not whole % n and whole > n]
        return found[int(rng.random() * len(found))] if found else None

    def text(self, value: Value) -> str:
        """The words."""
        return _PARTS[int(value)]
