"""The clock domain: a dial is moved on, moved back, doubled and tripled, modulo a small number.

    the dial starts at 7 . it moves on by 3 . it doubles . where is it ?
    <<7+3=10>> <<10*2=9>>                                  (modulo 11)

A handful of numbers, about 60 words and operations that do not commute: a small model learns it in minutes,
and it separates methods that compute step by step from those that guess. The question does not mention the
modulus: it is the same for the whole dataset, so it is part of what a model learns.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, permutations, product

from latentplan.problems.minigsm.presets import MinigsmConfig
from latentplan.problems.problem import Chain, Problem

MAX_PLANS = 64
_MAX_ORDERS = 5040


@dataclass(frozen=True)
class Phrasing:
    """The words of the clock domain: how a start, each operation and the question are rendered."""

    nouns: tuple[str, ...]
    starts: tuple[str, ...]
    operations: dict[str, tuple[str, ...]]
    multipliers: dict[int, tuple[str, ...]]
    asks: tuple[str, ...]


PHRASINGS = {
    "varied": Phrasing(
        nouns=("dial", "clock", "wheel", "pointer", "counter"),
        starts=(
            "the {noun} starts at {start} .",
            "the {noun} is at {start} .",
            "the {noun} shows {start} .",
            "a {noun} begins at {start} .",
        ),
        operations={
            "+": ("it moves on by {n} .", "it goes up by {n} .", "then add {n} .", "it gains {n} ."),
            "-": (
                "it moves back by {n} .",
                "it goes down by {n} .",
                "then take away {n} .",
                "it loses {n} .",
            ),
            "*": ("it is multiplied by {n} .", "then multiply it by {n} ."),
        },
        multipliers={
            2: ("it doubles .", "then double it .", "it is doubled ."),
            3: ("it triples .", "then triple it .", "it is tripled ."),
        },
        asks=("where is it ?", "what does it show ?", "where does it stop ?", "what is it now ?"),
    ),
    "plain": Phrasing(
        nouns=("dial", "clock", "wheel", "pointer", "counter", "meter", "gauge", "needle", "timer", "hand"),
        starts=("a {noun} shows {start} .", "the {noun} shows {start} ."),
        operations={
            "+": ("{ordinal} add {n} .", "{ordinal} plus {n} ."),
            "-": ("{ordinal} subtract {n} .", "{ordinal} minus {n} ."),
            "*": ("{ordinal} times {n} .",),
        },
        multipliers={
            2: ("{ordinal} double it .", "{ordinal} times 2 ."),
            3: ("{ordinal} triple it .", "{ordinal} times 3 ."),
        },
        asks=("result ?", "answer ?", "now ?", "reading ?"),
    ),
}

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
Operation = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ClockDraft:
    """A start and the operations on it, before any words.

    Attributes:
        start: the first residue, 0 to modulus - 1.
        operations: ('+' | '-' | '*', number), in the order of the story.
        modulus: every result is reduced modulo this.
        phrasing: the words that it may be rendered in.
    """

    start: int
    operations: tuple[Operation, ...]
    modulus: int
    phrasing: Phrasing = PHRASINGS["varied"]

    @property
    def canonical(self) -> str:
        """Equal for problems with the same set of plans: the order inside a commuting run is forgotten."""
        runs = ("".join(f"{sign}{n}" for sign, n in sorted(run)) for run in _commuting_runs(self.operations))
        return f"clock {self.modulus}: {self.start} {' '.join(runs)}"

    def render(self, rng: random.Random) -> Problem:
        """Returns the problem in words that `rng` chooses."""
        steps = _chain(self.start, self.operations, self.modulus)
        answer = steps[-1].removesuffix(">>").rpartition("=")[2]
        return Problem(self._question(rng), steps, answer, self.plans(), self.modulus)

    def others(self, rng: random.Random, config: MinigsmConfig) -> Iterator[ClockDraft]:
        """Drafts that differ in the start or in the number of one operation, in random order."""
        for index in rng.sample(range(len(self.operations) + 1), len(self.operations) + 1):
            numbers = _numbers(self.operations[index - 1][0] if index else "", config)
            for number in rng.sample(numbers, len(numbers)):
                other = self._with_number(index, number)
                if other != self:
                    yield other

    def render_other(self, other: ClockDraft, rng: random.Random) -> Problem:
        """Renders `other` in the words that `render` gives this problem with an `rng` in the same state."""
        return other.render(rng)

    def _with_number(self, index: int, number: int) -> ClockDraft:
        if index == 0:
            return replace(self, start=number)
        before, (sign, _), after = (
            self.operations[: index - 1],
            self.operations[index - 1],
            self.operations[index:],
        )
        return replace(self, operations=(*before, (sign, number), *after))

    def plans(self) -> tuple[Chain, ...]:
        """Returns every valid chain, that of the story first; at most `MAX_PLANS`.

        A chain is valid when it only reorders operations inside a run of neighbouring additions and
        subtractions, or inside a run of neighbouring multiplications. Steps are never merged, so all plans
        of a problem have equal length.
        """
        orders = product(*(permutations(run) for run in _commuting_runs(self.operations)))
        chains = dict.fromkeys(
            _chain(self.start, sum(order, ()), self.modulus) for order in islice(orders, 5040)
        )
        return tuple(islice(chains, MAX_PLANS))

    def _question(self, rng: random.Random) -> str:
        words = self.phrasing
        sentences = [rng.choice(words.starts).format(noun=rng.choice(words.nouns), start=self.start)]
        sentences += [
            rng.choice(_phrases(words, *operation)).format(n=operation[1], ordinal=ordinal)
            for operation, ordinal in zip(self.operations, _ORDINALS, strict=False)
        ]
        return " ".join([*sentences, rng.choice(words.asks)])


class ClockDomain:
    """Draws drafts of the clock domain; the settings are those of `config`."""

    def __init__(self, config: MinigsmConfig):
        addends = range(1, config.max_addend + 1)
        self.modulus, self.phrasing = config.modulus, PHRASINGS[config.phrasing]
        self.operations: list[Operation] = [(sign, n) for sign in "+-" for n in addends]
        self.operations += [("*", n) for n in config.multipliers]

    def draw(self, rng: random.Random, num_steps: int) -> ClockDraft:
        """Returns a start and `num_steps` operations, each uniform over all that the settings allow."""
        operations = tuple(rng.choices(self.operations, k=num_steps))
        return ClockDraft(rng.randrange(self.modulus), operations, self.modulus, self.phrasing)


def _numbers(sign: str, config: MinigsmConfig) -> Sequence[int]:
    """Returns what may stand behind a sign; without one, where the dial may start."""
    if not sign:
        return range(config.modulus)
    return config.multipliers if sign == "*" else range(1, config.max_addend + 1)


def _commuting_runs(operations: tuple[Operation, ...]) -> list[tuple[Operation, ...]]:
    return [tuple(run) for _, run in groupby(operations, key=lambda operation: operation[0] == "*")]


def _chain(start: int, operations: tuple[Operation, ...], modulus: int) -> Chain:
    value, steps = start, []
    for sign, n in operations:
        result = (value + n if sign == "+" else value - n if sign == "-" else value * n) % modulus
        steps.append(f"<<{value}{sign}{n}={result}>>")
        value = result
    return tuple(steps)


def _phrases(words: Phrasing, sign: str, n: int) -> tuple[str, ...]:
    general = words.operations[sign]
    return words.multipliers.get(n, general) if sign == "*" else general
