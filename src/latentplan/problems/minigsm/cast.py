"""Who and what a story is about: people with their pronouns, things with their plurals."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """A first name and its pronouns; in templates `{A}`, `{A.he}`, `{A.His}`, ..."""

    name: str
    he: str
    him: str
    his: str
    himself: str
    He: str
    His: str

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that can be counted; in templates `{item}` is one of it and `{item.s}` are many."""

    one: str
    s: str

    def __str__(self) -> str:
        return self.one

    def __format__(self, spec: str) -> str:
        return self.one

    @property
    def a(self) -> str:
        """With its article: an apple, a pear."""
        return f"{'an' if self.one[0] in 'aeiou' else 'a'} {self.one}"


Pool = Sequence[Person | Thing | str]

_WOMEN = """Anna Beth Carla Dana Ella Fatima Grace Hannah Ines Julia Kate Lena Maria Nora Olga Priya Rosa Sara
Tina Uma Vera Wendy Yuki Zoe Aisha Chloe Emma Freya Ling Mona"""
_MEN = """Adam Ben Carlos David Erik Felix George Hugo Ivan Jack Karim Leo Marco Noah Omar Paul Ravi Sam Tom
Victor Will Yusuf Zack Ali Daniel Finn Hassan Liam Mateo Oscar"""

PEOPLE: Pool = (
    *(Person(name, "she", "her", "her", "herself", "She", "Her") for name in _WOMEN.split()),
    *(Person(name, "he", "him", "his", "himself", "He", "His") for name in _MEN.split()),
)


def things(words: str) -> Pool:
    """Things from their singulars, between commas; an irregular plural follows a slash: `knife/knives`."""
    pairs = (word.strip().partition("/") for word in words.split(","))
    return tuple(Thing(one, many or plural(one)) for one, _, many in pairs)


def plural(word: str) -> str:
    """The regular English plural of a word."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def draw_cast(pools: Mapping[str, Pool], rng: random.Random) -> dict[str, object]:
    """One member for each role; roles that share a pool get different members."""
    chosen: dict[str, object] = {}
    for role, pool in pools.items():
        member = pool[int(rng.random() * len(pool))]
        while member in chosen.values():
            member = pool[int(rng.random() * len(pool))]
        chosen[role] = member
    return chosen
