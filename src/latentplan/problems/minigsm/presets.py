"""The generator settings of minigsm, its presets, and the split to which a problem belongs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, get_args

Domain = Literal["clock", "words"]
Distinct = Literal["problem", "question"]
Phrasings = Literal["varied", "plain"]
Label = Literal["any", "told"]
Split = Literal["train", "validation", "test"]

LONGEST_CHAIN = 8
SPLITS: tuple[Split, ...] = get_args(Split)

_TEST_PERCENT, _VALIDATION_PERCENT = 10, 5

# Chosen so that even the 88 one-step problems of the default clock domain are shared out 73, 5 and 10.
_SALT = b"500"


@dataclass(frozen=True)
class MinigsmConfig:
    """Every setting of the generator; `dataclasses.fields` gives each one's help text as `metadata["help"]`.

    Raises ValueError on a setting that is out of range, naming it.
    """

    world: Domain = field(
        default="words",
        metadata={"help": "clock: chains modulo a small number in about 60 words; words: natural English"},
    )
    min_steps: int = field(default=1, metadata={"help": "fewest steps of a chain (from 1)"})
    max_steps: int = field(default=4, metadata={"help": f"most steps of a chain (up to {LONGEST_CHAIN})"})
    step_weights: tuple[float, ...] | None = field(
        default=None,
        metadata={
            "help": "relative frequency of each number of steps, min_steps to max_steps; uniform if absent"
        },
    )
    distinct: Distinct = field(
        default="question",
        metadata={
            "help": "what never repeats in one call: the problem (graph and numbers), or only the question, "
            "so that one problem can come back in other words"
        },
    )
    label: Label = field(
        default="any",
        metadata={
            "help": "words: which valid chain is the labelled one: any, chosen by the seed, "
            "or told, in the order of the story"
        },
    )
    number_scale: int = field(
        default=1, metadata={"help": "words: the ranges of numbers are this many times as wide (from 1)"}
    )
    max_number: int = field(
        default=1000, metadata={"help": "words: no number and no result is larger (from 20)"}
    )
    operators: str = field(default="+-*/", metadata={"help": "words: the operators allowed, of +-*/"})
    percentages: bool = field(default=True, metadata={"help": "words: allow steps such as <<60*20/100=12>>"})
    decimals: bool = field(
        default=False, metadata={"help": "words: prices, lengths and weights may have up to two decimals"}
    )
    distractors: int = field(
        default=0, metadata={"help": "words: sentences with a number that no step needs (0 to 3)"}
    )
    families: tuple[str, ...] | None = field(
        default=None, metadata={"help": "words: only these families of stories; all if absent"}
    )
    modulus: int = field(
        default=11, metadata={"help": "clock: every result is reduced modulo this number (from 2)"}
    )
    max_addend: int = field(
        default=3,
        metadata={"help": "clock: the largest number added or taken away (from 1, below the modulus)"},
    )
    multipliers: tuple[int, ...] = field(
        default=(2, 3), metadata={"help": "clock: the numbers that a step may multiply by; may be empty"}
    )

    phrasing: Phrasings = field(
        default="varied",
        metadata={"help": "clock: 'varied' sentences, or 'plain' ones, the shortest that still differ"},
    )

    def __post_init__(self) -> None:
        _require(self.world in get_args(Domain), "world", self.world, f"one of {', '.join(get_args(Domain))}")
        _require(self.distinct in get_args(Distinct), "distinct", self.distinct, "'problem' or 'question'")
        _require(1 <= self.min_steps <= LONGEST_CHAIN, "min_steps", self.min_steps, f"1 to {LONGEST_CHAIN}")
        _require(
            self.min_steps <= self.max_steps <= LONGEST_CHAIN,
            "max_steps",
            self.max_steps,
            f"from min_steps ({self.min_steps}) to {LONGEST_CHAIN}",
        )
        self._check_weights()
        self._check_words()
        self._check_clock()

    @property
    def step_counts(self) -> range:
        """Every number of steps that a chain can have."""
        return range(self.min_steps, self.max_steps + 1)

    def _check_weights(self) -> None:
        weights = self.step_weights
        if weights is None:
            return
        valid = len(weights) == len(self.step_counts) and min(weights) >= 0 and sum(weights) > 0
        needed = f"{len(self.step_counts)} numbers (min_steps to max_steps), none negative, not all 0"
        _require(valid, "step_weights", weights, needed)

    def _check_words(self) -> None:
        _require(self.label in get_args(Label), "label", self.label, "'any' or 'told'")
        _require(self.number_scale >= 1, "number_scale", self.number_scale, "1 or more")
        _require(self.max_number >= 20, "max_number", self.max_number, "20 or more")
        signs = set(self.operators)
        _require(bool(signs) and signs <= set("+-*/"), "operators", self.operators, "some of +-*/")
        _require(0 <= self.distractors <= 3, "distractors", self.distractors, "0 to 3")

    def _check_clock(self) -> None:
        _require(self.phrasing in get_args(Phrasings), "phrasing", self.phrasing, "'varied' or 'plain'")
        _require(self.modulus >= 2, "modulus", self.modulus, "2 or more")
        addends = f"1 to modulus - 1 ({self.modulus - 1})"
        _require(1 <= self.max_addend < self.modulus, "max_addend", self.max_addend, addends)
        valid = all(multiplier >= 2 for multiplier in self.multipliers)
        _require(valid, "multipliers", self.multipliers, "whole numbers from 2")


def _require(valid: bool, setting: str, value: object, needed: str) -> None:
    if not valid:
        raise ValueError(f"minigsm: {setting} is {value!r}; it must be {needed}")


PRESETS: dict[str, MinigsmConfig] = {
    "clock": MinigsmConfig(world="clock"),
    "quickstart": MinigsmConfig(world="clock", phrasing="plain", step_weights=(1, 2, 2, 2)),
    "long": MinigsmConfig(world="clock", phrasing="plain", max_steps=LONGEST_CHAIN),
    "easy": MinigsmConfig(max_steps=3, max_number=100, percentages=False),
    "default": MinigsmConfig(max_steps=5),
    "hard": MinigsmConfig(
        min_steps=4, max_steps=8, max_number=10_000, number_scale=3, decimals=True, distractors=1
    ),
}
"""Presets; `dataclasses.replace(PRESETS[name], ...)` changes single settings."""


def fingerprint(text: str) -> int:
    """Returns a 64-bit number that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=_SALT).digest(), "big")


def split_of(canonical: str) -> Split:
    """Returns the split (train 85%, validation 5%, test 10%) of the problem with this canonical form."""
    percent = fingerprint(canonical) % 100
    if percent < _TEST_PERCENT:
        return "test"
    return "validation" if percent < _TEST_PERCENT + _VALIDATION_PERCENT else "train"
