"""The domain of words: story templates, chosen by the settings, drawn and rendered."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from operator import eq

from latentplan.problems.minigsm.expression_graph import Node, Value, canonical, evaluate, parse
from latentplan.problems.minigsm.number_kinds import NumberSettings
from latentplan.problems.minigsm.presets import LONGEST_CHAIN, MinigsmConfig
from latentplan.problems.minigsm.solution_chains import PlanTable, number_text
from latentplan.problems.minigsm.story_template import (
    Part,
    Phrasings,
    Shape,
    StoryTemplate,
    draw_cast,
    phrasings,
    shapes,
)
from latentplan.problems.minigsm.theme_files import story_templates
from latentplan.problems.problem import Chain, Problem

_RETRIES = 6


@dataclass(frozen=True, slots=True)
class WordDraft:
    """A shape with its numbers, before any words.

    Attributes:
        shape: the story template and the parts taken.
        values: the numbers of the question.
        num_steps: the length that the labelled chain is to have.
        config: the settings.
    """

    shape: Shape
    values: dict[str, Value]
    num_steps: int
    config: MinigsmConfig

    @property
    def canonical(self) -> str:
        """Graph and numbers, whatever the story and the words.

        The last decomposition is the most expanded one, so that `(a+b)*c` here and `a*c+b*c` in another
        story are the same problem.
        """
        return canonical(self.shape.graphs[-1], self.values)

    def render(self, rng: random.Random) -> Problem | None:
        """Returns the problem in words that `rng` chooses, or None if no valid chain has the right length."""
        chains, labels = self._chains()
        if not labels:
            return None
        label = self._label(labels, rng)
        return Problem(self._question(rng), label, self._answer, tuple(chains))

    def others(self, rng: random.Random, config: MinigsmConfig) -> Iterator[WordDraft]:
        """Drafts with another number in one place of the story, in random order; not all make a problem."""
        settings = NumberSettings(config.number_scale, config.max_number, config.decimals)
        names = [name for part in self.shape.parts for name in part.numbers]
        for name in rng.sample(names, len(names)):
            for _ in range(_RETRIES):
                number = redraw_number(self.shape, self.values, name, rng, settings)
                if number is not None and number != self.values[name]:
                    yield replace(self, values={**self.values, name: number})

    def render_other(self, other: WordDraft, rng: random.Random) -> Problem | None:
        """Renders `other` in the words that `render` gives this problem with an `rng` in the same state.

        Its labelled chain is the one with the same operations and the most steps in common; None without one.
        """
        label = self._label(self._chains()[1], rng)
        chains, labels = other._chains()
        alike = [chain for chain in labels if list(map(_operations, chain)) == list(map(_operations, label))]
        if not alike:
            return None
        nearest = max(alike, key=lambda chain: sum(map(eq, chain, label)))
        return Problem(other._question(rng), nearest, other._answer, tuple(chains))

    @property
    def _answer(self) -> str:
        return number_text(evaluate(self.shape.graphs[0], self.values))

    def _chains(self) -> tuple[list[Chain], list[Chain]]:
        """Returns all valid chains, and those of the length that the labelled one is to have."""
        decimal = self.shape.may_be_decimal if self.config.decimals else frozenset()
        table = _table(self.shape.graphs, decimal, _operators(self.config))
        chains = table.chains(self.values, self.config.max_number)
        return chains, [chain for chain in chains if len(chain) == self.num_steps]

    def _label(self, labels: list[Chain], rng: random.Random) -> Chain:
        return labels[0] if self.config.label == "told" else rng.choice(labels)

    def _question(self, rng: random.Random) -> str:
        template, parts = self.shape.template, self.shape.parts
        words = draw_cast(template.cast, rng)
        for part in parts:
            for name, kind in part.numbers.items():
                words[name] = kind.text(self.values[name])
        sentences = [_choose(part.text, rng).format_map(words) for part in parts]
        count = min(self.config.distractors, len(template.distractors))
        sentences[1:1] = [
            distractor.format_map({**words, "z": rng.randint(2, 40)})
            for distractor in rng.sample(template.distractors, count)
        ]
        return " ".join([*sentences, _choose(parts[-1].question, rng).format_map(words)])


class WordDomain:
    """Draws drafts of word problems; the settings are those of `config`.

    Raises ValueError when no story has problems of one of the requested lengths, or a story is unknown.
    """

    def __init__(self, config: MinigsmConfig):
        self.config = config
        self.settings = NumberSettings(config.number_scale, config.max_number, config.decimals)
        templates = _templates(config)
        self.shapes = {length: _of_length(templates, length, config) for length in config.step_counts}

    def draw(self, rng: random.Random, num_steps: int) -> WordDraft | None:
        """Returns a draft of a story that has problems of this length; stories are equally likely."""
        shape = rng.choice(rng.choice(self.shapes[num_steps]))
        values = draw_numbers(shape, rng, self.settings)
        return None if values is None else WordDraft(shape, values, num_steps, self.config)


def draw_numbers(shape: Shape, rng: random.Random, settings: NumberSettings) -> dict[str, Value] | None:
    """Draws numbers for a story; None where those drawn so far leave no sensible one for the rest."""
    values: dict[str, Value] = {}
    totals: list[Value] = []
    for _ in range(len(shape.parts) + _RETRIES):
        if _draw_part(shape.parts[len(totals)], values, rng, settings):
            totals.append(values["total"])
            if len(totals) == len(shape.parts):
                return values
        elif totals:
            # The part before may have left a number that cannot be shared out: draw that one again.
            totals.pop()
            values["total"] = totals[-1] if totals else 0
    return None


def redraw_number(
    shape: Shape, values: dict[str, Value], name: str, rng: random.Random, settings: NumberSettings
) -> Value | None:
    """Returns another draw of one number, for the story as it is up to there; None where there is none."""
    story: dict[str, Value] = {}
    for part in shape.parts:
        for number, kind in part.numbers.items():
            if number == name:
                return kind.draw(rng, story, settings)
            story[number] = values[number]
        _carry_on(part, story)
    raise KeyError(name)


def _draw_part(part: Part, values: dict[str, Value], rng: random.Random, settings: NumberSettings) -> bool:
    for name, kind in part.numbers.items():
        value = kind.draw(rng, values, settings)
        if value is None:
            return False
        values[name] = value
    _carry_on(part, values)
    total = values["total"]
    return 0 < total <= settings.largest and not (100 if settings.decimals else 1) % total.denominator


def _carry_on(part: Part, values: dict[str, Value]) -> None:
    """Sets what follows from the numbers of a part: its other quantities and the running total."""
    for name, expression in part.let.items():
        values[name] = evaluate(_plain(expression), values)
    values["total"] = evaluate(_plain(phrasings(part.total)[0]), values)


def _operations(step: str) -> str:
    return re.sub(r"[0-9.]+", "", step)


def _templates(config: MinigsmConfig) -> list[StoryTemplate]:
    known = story_templates()
    if config.families is None:
        return list(known.values())
    unknown = [name for name in config.families if name not in known]
    if unknown or not config.families:
        raise ValueError(f"minigsm: families is {config.families!r}; known are {', '.join(known)}")
    return [known[name] for name in config.families]


def _of_length(templates: list[StoryTemplate], length: int, config: MinigsmConfig) -> list[list[Shape]]:
    allowed = set(_operators(config))
    fitting = [
        [shape for shape in _shapes(template) if length in shape.lengths and shape.operators <= allowed]
        for template in templates
    ]
    found = [shapes for shapes in fitting if shapes]
    if not found:
        raise ValueError(
            f"minigsm: with these settings no family has problems of {length} step(s): "
            "allow more operators, percentages or families, or other numbers of steps"
        )
    return found


@cache
def _shapes(template: StoryTemplate) -> list[Shape]:
    return list(shapes(template, LONGEST_CHAIN))


@lru_cache(maxsize=10_000)
def _table(graphs: tuple[Node, ...], may_be_decimal: frozenset[str], operators: str) -> PlanTable:
    return PlanTable(graphs, may_be_decimal, operators)


@cache
def _plain(expression: str) -> Node:
    return parse(expression, {})


def _operators(config: MinigsmConfig) -> str:
    return config.operators + "%" * config.percentages


def _choose(text: Phrasings, rng: random.Random) -> str:
    return text if isinstance(text, str) else text[int(rng.random() * len(text))]
