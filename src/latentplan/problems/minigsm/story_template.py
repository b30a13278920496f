"""A template of word problems: a story in parts, each of which adds a sentence and changes the running total.

Templates are data, in `themes/*.yaml`, which `theme_files` reads:

    egg_farm:
      cast: {A: people}
      parts:
        - text: "{A} keeps {hens} hens, and each of them lays {each} eggs a week."
          numbers: {hens: number 3 to 12, each: small 3 to 6}
          total: hens * each
          question: "How many eggs do the hens lay in a week?"
        - text: "{A.He} keeps {kept} of the eggs for {A.himself}."
          numbers: {kept: below total}
          total: total - kept
          question: "How many eggs are left to sell?"

A problem takes the first part and any of the later ones, in order, and asks the question of the last one
taken. A selection in which some number does not matter for the answer, or some name has no meaning yet, is no
problem of the template: it is left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

from latentplan.problems.minigsm.expression_graph import Node, children, flatten, parse, walk
from latentplan.problems.minigsm.number_kinds import Number

_MAX_DECOMPOSITIONS = 4


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


Pool = Sequence[Person | Thing]

_WOMEN = """Anna Beth Carla Dana Ella Fatima Grace Hannah Ines Julia Kate Lena Maria Nora Olga Priya Rosa Sara
Tina Uma Vera Wendy Yuki Zoe Aisha Chloe Emma Freya Ling Mona"""
_MEN = """Adam Ben Carlos David Erik Felix George Hugo Ivan Jack Karim Leo Marco Noah Omar Paul Ravi Sam Tom
Victor Will Yusuf Zack Ali Daniel Finn Hassan Liam Mateo Oscar"""

PEOPLE: Pool = (
    *(Person(name, "she", "her", "her", "herself", "She", "Her") for name in _WOMEN.split()),
    *(Person(name, "he", "him", "his", "himself", "He", "His") for name in _MEN.split()),
)


def things(words: str) -> tuple[Thing, ...]:
    """Reads things from their singulars, between commas; an irregular plural follows a slash:
    `knife/knives`.
    """
    pairs = (word.strip().partition("/") for word in words.split(","))
    return tuple(Thing(one, many or plural(one)) for one, _, many in pairs)


def plural(word: str) -> str:
    """Returns the regular English plural of a word."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


Phrasings = str | tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """A sentence or two of a story.

    Attributes:
        text: the sentences, or several phrasings of them.
        numbers: the numbers that they bring in, drawn in this order.
        total: what the running total becomes; several expressions are equivalent decompositions, the one that
            is rendered first, the most expanded one last.
        let: other quantities that later parts may use, in expressions of what is there so far.
        question: the question, or several phrasings, if the story ends here; it cannot if there is none.
        name: what `needs` and `unless` of later parts call this one.
        needs: names of the parts of which one must have been taken.
        unless: names of the parts of which none may have been taken.
        required: later parts make no sense without this one.
    """

    text: Phrasings
    numbers: Mapping[str, Number] = field(default_factory=dict)
    total: Phrasings = "total"
    let: Mapping[str, str] = field(default_factory=dict)
    question: Phrasings = ()
    name: str = ""
    needs: Phrasings = ()
    unless: Phrasings = ()
    required: bool = False


@dataclass(frozen=True, eq=False)
class StoryTemplate:
    """A story with a name of its own.

    Attributes:
        name: unique among all templates.
        cast: the pool from which each role is drawn.
        parts: the story in order; the first part is always taken.
        distractors: sentences with a number `{z}` that no step needs.
    """

    name: str
    cast: Mapping[str, Pool]
    parts: tuple[Part, ...]
    distractors: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Shape:
    """One selection of a template's parts: a graph without its numbers.

    Attributes:
        template: the story template.
        parts: the parts taken, in order.
        graphs: the decompositions of the answer, the one rendered first.
        lengths: the numbers of steps that its chains can have.
        operators: the operators of the graph that is rendered.
    """

    template: StoryTemplate
    parts: tuple[Part, ...]
    graphs: tuple[Node, ...]
    lengths: frozenset[int]
    operators: frozenset[str]

    @property
    def may_be_decimal(self) -> frozenset[str]:
        """The names of numbers that can have decimals."""
        numbers = (item for part in self.parts for item in part.numbers.items())
        return frozenset(name for name, kind in numbers if kind.may_be_decimal)


def shapes(template: StoryTemplate, longest: int) -> Iterator[Shape]:
    """Yields every selection of parts that makes a problem of at most `longest` steps."""
    for end, last in enumerate(template.parts):
        if not last.question:
            continue
        middle = range(1, end)
        for size in range(len(middle) + 1):
            for chosen in combinations(middle, size):
                indices = sorted({0, *chosen, end})
                if _is_complete(template, indices):
                    yield from _shape(template, tuple(template.parts[index] for index in indices), longest)


def phrasings(text: Phrasings) -> tuple[str, ...]:
    """Returns one phrasing or several, always as a tuple."""
    return (text,) if isinstance(text, str) else text


def draw_cast(pools: Mapping[str, Pool], rng: random.Random) -> dict[str, object]:
    """Returns one member for each role; roles that share a pool get different members."""
    chosen: dict[str, object] = {}
    for role, pool in pools.items():
        member = pool[int(rng.random() * len(pool))]
        while member in chosen.values():
            member = pool[int(rng.random() * len(pool))]
        chosen[role] = member
    return chosen


def _is_complete(template: StoryTemplate, indices: list[int]) -> bool:
    taken: set[str] = set()
    for index, part in enumerate(template.parts[: indices[-1] + 1]):
        if index not in indices:
            if part.required:
                return False
            continue
        if part.needs and not taken & set(phrasings(part.needs)):
            return False
        if taken & set(phrasings(part.unless)):
            return False
        taken.add(part.name)
    return True


def _shape(template: StoryTemplate, parts: tuple[Part, ...], longest: int) -> Iterator[Shape]:
    ways = product(*(phrasings(part.total) for part in parts))
    graphs = [_graph(parts, totals) for totals, _ in zip(ways, range(_MAX_DECOMPOSITIONS), strict=False)]
    names = {name for part in parts for name in part.numbers}
    if any({leaf for leaf in walk(graph) if isinstance(leaf, str)} != names for graph in graphs):
        return
    graphs = list(dict.fromkeys(graphs))
    lengths = frozenset(length for graph in graphs for length in _lengths(graph))
    if min(lengths) <= longest and min(lengths) > 0:
        operators = frozenset(sign for node in walk(graphs[0]) for sign in _operators(node))
        yield Shape(template, parts, tuple(graphs), lengths, operators)


def _graph(parts: tuple[Part, ...], totals: tuple[str, ...]) -> Node:
    known: dict[str, Node] = {}
    for part, total in zip(parts, totals, strict=True):
        for name, expression in part.let.items():
            known[name] = parse(expression, known)
        known["total"] = parse(total, known)
    return flatten(known["total"])


def _lengths(graph: Node) -> range:
    """Returns the fewest and the most steps: a sum or product of three can be one step."""
    inner = [node for node in walk(graph) if children(node)]
    binary = sum(len(children(node)) - 1 for node in inner)
    threes = sum(node[0] in "+*" and len(children(node)) == 3 for node in inner)
    return range(binary - threes, binary + 1)


def _operators(node: Node) -> str:
    if not children(node):
        return ""
    if node[0] == "+":
        return "".join("+-"[sign < 0] for sign, _ in node[1][1:])
    return node[0]
