"""Reads story templates from the YAML files in `themes/`, and says where one of them is wrong.

A file is a theme (`docs/data.md` explains how to write a story):

    pools: {cakes: "biscuit, muffin"}    # things that a role of a cast is drawn from
    distractors: [...]                   # for every story of the file that has none of its own
    stories:
      baking: {cast: ..., parts: [...]}  # StoryTemplate, with a Part for each part

Everything is checked when it is read: a typo is an error with its file, story and key, not a problem with a
hole in it. The order of the templates, files by name and stories as written, decides what a seed draws.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from latentplan.problems.minigsm.expression_graph import parse, walk
from latentplan.problems.minigsm.number_kinds import CONSTANTS, Number, read_number
from latentplan.problems.minigsm.story_template import (
    PEOPLE,
    Part,
    Person,
    Phrasings,
    Pool,
    StoryTemplate,
    Thing,
    phrasings,
    things,
)

_STORY_KEYS = ("cast", "distractors", "parts")
_THEME_KEYS = ("pools", "distractors", "stories")
_RESERVED = ("total", "percent", "z")
_ROLE_FORMS = {Person: tuple(field.name for field in fields(Person))[1:], Thing: ("s", "a")}


class StoryTemplateError(ValueError):
    """A theme file is wrong: the message names the file, the story and the key."""

    def __init__(self, where: tuple[str, ...], problem: str):
        super().__init__(f"minigsm: {', '.join(where)}: {problem}")
        self.where, self.problem = where, problem


@cache
def story_templates() -> Mapping[str, StoryTemplate]:
    """Returns every story template by its name, read once in a process.

    Raises StoryTemplateError where a file is wrong, or two stories have one name.
    """
    themes = files("latentplan.problems.minigsm").joinpath("themes").iterdir()
    templates: dict[str, StoryTemplate] = {}
    for file in sorted(themes, key=lambda file: file.name):
        if not file.name.endswith(".yaml"):
            continue
        theme = read_theme(file.read_text(encoding="utf-8"), file.name)
        for name in theme.keys() & templates.keys():
            raise StoryTemplateError((file.name, f"story {name}"), "another file has a story of this name")
        templates.update(theme)
    return templates


def read_theme(text: str, name: str) -> dict[str, StoryTemplate]:
    """Returns the story templates of one theme, in order, from the text of its file, which errors call
    `name`.

    Raises StoryTemplateError on anything that is not as it must be.
    """
    with _within(name):
        theme = _mapping(_load(text), _THEME_KEYS)
        pools = {"people": PEOPLE, **(_pools(theme["pools"]) if "pools" in theme else {})}
        with _within("distractors"):
            distractors = _distractors(theme.get("distractors", []))
        with _within("stories"):
            stories = _mapping(theme.get("stories"))
        return {story: _story(story, content, pools, distractors) for story, content in stories.items()}


@contextmanager
def _within(location: str) -> Iterator[None]:
    """Adds a location to what is raised inside."""
    try:
        yield
    except StoryTemplateError as error:
        raise StoryTemplateError((location, *error.where), error.problem) from None
    except ValueError as error:
        raise StoryTemplateError((location,), str(error)) from None


class _Loader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    """Every scalar is text, also `off` and `5`; a key given twice is refused. In C where PyYAML has it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Returns the mapping of a node."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ValueError(f"line {key.start_mark.line + 1}: {key.value!r} is already given above")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load(text: str) -> object:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ValueError(f"line {line} is not YAML: {error.problem}; put sentences between quotes") from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {error}") from None


def _pools(content: object) -> Mapping[str, Pool]:
    with _within("pools"):
        pools: dict[str, tuple[Thing, ...]] = {}
        for name, words in _mapping(content).items():
            with _within(name):
                if name == "people":
                    raise ValueError("this pool is built in; give yours another name")
                pools[name] = things(_text(words))
                if not all(thing.one for thing in pools[name]):
                    raise ValueError("a word is missing between two commas")
        return pools


def _story(
    name: str, content: object, pools: Mapping[str, Pool], distractors: tuple[str, ...]
) -> StoryTemplate:
    with _within(f"story {name}"):
        story = _mapping(content, _STORY_KEYS)
        with _within("cast"):
            cast = _cast(story.get("cast"), pools)
        with _within("distractors"):
            if "distractors" in story:
                distractors = _distractors(story["distractors"])
            for sentence in distractors:
                _check_sentence(sentence, cast, {"z"})
        return StoryTemplate(name, cast, _parts(story.get("parts"), cast), distractors)


def _cast(content: object, pools: Mapping[str, Pool]) -> dict[str, Pool]:
    roles = {role: _text(pool) for role, pool in _mapping(content).items()}
    for role, pool in roles.items():
        if role in _RESERVED:
            raise ValueError(f"{role!r} has a meaning of its own; give the role another name")
        _require_known(pool, pools, "pool")
        if len(pools[pool]) < list(roles.values()).count(pool):
            raise ValueError(f"pool {pool!r} has fewer members than there are roles that draw from it")
    return {role: pools[pool] for role, pool in roles.items()}


def _distractors(content: object) -> tuple[str, ...]:
    sentences = phrasings(_phrasings(content)) if content != [] else ()
    for sentence in sentences:
        if "{z}" not in sentence:
            raise ValueError(f"{sentence!r} has no number: write {{z}} for it")
    return sentences


def _parts(content: object, cast: Mapping[str, Pool]) -> tuple[Part, ...]:
    if not isinstance(content, list) or not content:
        raise ValueError("'parts' must be a list of parts")
    reader, parts = _PartReader(cast), []
    for number, part in enumerate(content, 1):
        with _within(f"part {number}"):
            parts.append(reader.read(_mapping(part, reader.readers)))
    if not any(part.question for part in parts):
        raise ValueError("no part has a 'question'")
    return tuple(parts)


class _PartReader:
    """Reads the parts of one story in order, and knows what the parts so far have introduced."""

    def __init__(self, cast: Mapping[str, Pool]):
        self.cast = cast
        self.numbers: set[str] = set()
        self.quantities: set[str] = set()
        self.names: set[str] = set()
        # In the order in which the content of one key may use that of another.
        self.readers: dict[str, Callable[[object], Any]] = {
            "numbers": self._numbers,
            "let": self._let,
            "total": self._total,
            "text": self._sentences,
            "question": self._sentences,
            "needs": self._earlier_parts,
            "unless": self._earlier_parts,
            "name": _text,
            "required": _switch,
        }

    def read(self, content: Mapping[str, object]) -> Part:
        """Returns the next part."""
        part: dict[str, Any] = {}
        for key, read in self.readers.items():
            if key in content:
                with _within(key):
                    part[key] = read(content[key])
        if "text" not in part:
            raise ValueError("there is no 'text'")
        if "total" not in part and "total" not in self.quantities:
            raise ValueError("the first part has no 'total'")
        self.quantities.add("total")
        if "name" in part:
            self.names.add(part["name"])
        return Part(**part)

    def _numbers(self, content: object) -> dict[str, Number]:
        numbers = {}
        for name, kind in _mapping(content).items():
            with _within(name):
                self._check_name(name)
                if name in self.cast:
                    raise ValueError(f"{name!r} is a role of the cast; give the number another name")
                numbers[name] = read_number(_text(kind))
                quantity = getattr(numbers[name], "quantity", None)
                if quantity is not None:
                    _require_known(quantity, self.quantities, "quantity so far")
                self.numbers.add(name)
                self.quantities.add(name)
        return numbers

    def _let(self, content: object) -> dict[str, str]:
        expressions = {}
        for name, expression in _mapping(content).items():
            with _within(name):
                self._check_name(name)
                expressions[name] = self._expression(_text(expression))
                self.quantities.add(name)
        return expressions

    def _total(self, content: object) -> Phrasings:
        ways = _phrasings(content)
        for expression in phrasings(ways):
            self._expression(expression)
        return ways

    def _expression(self, expression: str) -> str:
        for leaf in walk(parse(expression, {})):
            if isinstance(leaf, str):
                _require_known(leaf, self.quantities, "quantity so far")
            elif isinstance(leaf, int) and leaf not in CONSTANTS:
                raise ValueError(f"{leaf} is none of the constants {', '.join(map(str, CONSTANTS))}")
        return expression

    def _sentences(self, content: object) -> Phrasings:
        sentences = _phrasings(content)
        for sentence in phrasings(sentences):
            _check_sentence(sentence, self.cast, self.numbers)
        return sentences

    def _earlier_parts(self, content: object) -> Phrasings:
        parts = _phrasings(content)
        for name in phrasings(parts):
            _require_known(name, self.names, "name of an earlier part")
        return parts

    def _check_name(self, name: str) -> None:
        if not name.isidentifier() or name in _RESERVED:
            raise ValueError("a name is one word of letters and digits, and not " + ", ".join(_RESERVED))


def _check_sentence(sentence: str, cast: Mapping[str, Pool], numbers: Collection[str]) -> None:
    """Raises ValueError where a `{...}` of a sentence is no role, form of a role, or number."""
    for _, name, spec, conversion in string.Formatter().parse(sentence):
        if name is None:
            continue
        if spec or conversion:
            raise ValueError(f"{sentence!r} has a ':' or '!' inside {{...}}; there are only names and forms")
        role, _, form = name.partition(".")
        _require_known(role, {*cast, *numbers}, "role or number so far")
        known = _ROLE_FORMS[type(cast[role][0])] if role in cast and role not in numbers else ()
        if form or "." in name:
            _require_known(form, known, f"form of {role}")


def _require_known(name: str, known: Collection[str], what: str) -> None:
    if name in known:
        return
    similar = get_close_matches(name, sorted(known), 1)
    hint = f"did you mean {similar[0]!r}?" if similar else f"known are: {', '.join(sorted(known)) or 'none'}"
    raise ValueError(f"{name!r} is no {what}; {hint}")


def _mapping(content: object, keys: Collection[str] | None = None) -> dict[str, Any]:
    """Returns a mapping of YAML, whose keys are text, and of `keys` where these are given."""
    if not isinstance(content, dict) or not content:
        raise ValueError(f"it must be a mapping of 'key: value', not {content!r}")
    for key in content:
        _text(key)
        if keys is not None:
            _require_known(key, keys, "key")
    return content


def _phrasings(content: object) -> Phrasings:
    """Returns a text, or a list of texts as a tuple."""
    if isinstance(content, list) and content:
        return tuple(_text(text) for text in content)
    if isinstance(content, str) and content:
        return content
    raise ValueError(f"it must be text, between quotes, or a list of texts, not {content!r}")


def _text(content: object) -> str:
    if not isinstance(content, str) or not content:
        raise ValueError(f"it must be text, not {content!r}" if content else "it is empty")
    return content


def _switch(content: object) -> bool:
    if content not in ("true", "false"):
        raise ValueError(f"it must be true or false, not {content!r}")
    return content == "true"
