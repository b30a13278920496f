"""What a sentence says, as things that can be carried on: numbers, words, references, "every X is a Y".

    She sold 48+24 = 72 clips in all.     takes 48 and 24, gives 72
    Every wump is a zorp.                 takes 'wump', gives 'zorp'; in questions told in such sentences
    Elvis Presley loved bananas.          'elvi', 'presley', 'lov', 'banana': content words, lightly stemmed
    Is #2 greater than #1?                takes what steps 1 and 2 found, as StrategyQA's decompositions write

Nothing here depends on the case of letters or on the width of blanks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from latentplan.problems.equations import Equation, find_numbers, parse_equation
from latentplan.rewards.plan_graph import numbers_of_question

Thing = Fraction | str
"""A number, the stem of a word, or a reference, `"#2"`."""

_STOP_WORDS = """
a about after all also always an and another any are as at be because been before being both but by
can could did do does doing done down during each either else even ever every for from further get
gets got had has have having he her here hers him his how i if in into is it its itself just let
like made make many may me means might more most much must my need needs neither no nor not now of
off on once one only or other our out over per same shall she should since so some such take takes
than that the their them then there therefore these they this those though through thus to together
too total under until up upon us use used was we were what when where whether which while who whom
whose why will with within without would yes yet you your x
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say nothing about what a sentence is about."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_REFERENCE = re.compile(r"#\s*([0-9]{1,3})(?![0-9])")
_ANNOTATION = re.compile(r"<<[^<>]*>>")
_FIRST_NUMBER = re.compile(r"[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?%?|\.[0-9]+%?")
_GOES_ON = re.compile(r"\s*[-+*/×÷x(]\s*[$(]?\s*\.?[0-9]", re.IGNORECASE)
_TIMES = re.compile(r"(?<![^\W\d_])[xX×·](?![^\W\d_])")
_OF = re.compile(r"(?<=[0-9%])\s*\bof\b\s*(?=[$0-9])", re.IGNORECASE)
_MINUS = str.maketrans("−–—", "---")
_WORDS_AROUND = re.compile(r"[-/]?[^\W\d_][\w'’-]*")
_NO_ARITHMETIC = re.compile(r"[^-+*/÷()0-9.,%]|[.,](?![0-9])")
_NEXT_NUMBER = re.compile(r"(?<=[0-9)%])\s+(?=[0-9(.])")
_SENTENCE_END = re.compile(r"[.!?;]+(?=\D|$)")
_QUANTIFIERS = frozenset(["every", "each", "all", "any", "a", "an", "the"])
_COPULAS = frozenset(["is", "are", "was", "were"])
_VOWELS = frozenset("aeiouy")


@dataclass(frozen=True, slots=True)
class Calculation:
    """`a op b = c` within a sentence.

    Attributes:
        operands: the numbers before the equals sign, without their signs.
        results: the number behind it; a percentage as a share too, `60%` as 60 and 3/5.
        equations: the calculation to the letter, for each result; none where it cannot be read as arithmetic.
    """

    operands: tuple[Fraction, ...]
    results: tuple[Fraction, ...]
    equations: tuple[Equation, ...] = ()

    def is_false(self, modulus: int | None = None) -> bool:
        """Tells whether it can be read as arithmetic and does not come out."""
        return bool(self.equations) and not any(equation.is_true(modulus) for equation in self.equations)


@dataclass(frozen=True, slots=True)
class Relation:
    """`every X is a Y`, `X is not a Y`: stems of one word each; a negated Y is `"not Y"`."""

    subject: str
    object: str


@dataclass(frozen=True, slots=True)
class Statement:
    """Any other text: its numbers in order, the stems of its content words, and the steps it refers to."""

    numbers: tuple[Fraction, ...]
    words: frozenset[str]
    references: frozenset[str]


Clause = Calculation | Relation | Statement


@lru_cache(maxsize=65536)
def clauses_of(step: str, relational: bool = False) -> tuple[Clause, ...]:
    """Returns what a step says, in order; nothing for a step without a number or a content word.

    A line with calculations consists of them; with `relational`, each `X is a Y` is a clause of its own;
    every other line is one statement.
    """
    found: list[Clause] = []
    for line in _lines(step):
        calculations = calculations_of(line)
        relations = relations_of(line) if relational else ()
        if calculations:
            found += calculations
        elif relations:
            found += relations
        else:
            statement = statement_of(line)
            found += [statement] if statement.words or statement.numbers or statement.references else []
    return tuple(found)


def calculations_of(line: str) -> list[Calculation]:
    """Returns every `a op b = c` of a line.

    `a = b = c` is two, or one where b is no number; `x = 3` is none.
    """
    left, *rights = line.split("=")
    found: list[Calculation] = []
    for right in rights:
        number = _FIRST_NUMBER.search(right)
        rest = right[number.end() :] if number else ""
        if number is None or _GOES_ON.match(rest) or not find_numbers(left):
            left = right if len(find_numbers(left)) < 2 and find_numbers(right) else left
            continue
        found.append(_calculation(left, number.group(0)))
        left = rest if find_numbers(rest) else number.group(0)
    return found


@lru_cache(maxsize=16384)
def relations_of(text: str) -> tuple[Relation, ...]:
    """Returns every sentence that is `X is a Y`, in order, where X and Y are single words."""
    found = map(_relation, _SENTENCE_END.split(text.replace("\n", ". ")))
    return tuple(relation for relation in found if relation is not None)


@lru_cache(maxsize=65536)
def statement_of(text: str) -> Statement:
    """Returns the numbers, content words and references of a text."""
    plain = _REFERENCE.sub(" ", text)
    words = (stem(word) for word in _words(plain) if word not in STOP_WORDS)
    references = frozenset(f"#{int(number)}" for number in _REFERENCE.findall(text))
    return Statement(tuple(find_numbers(plain)), frozenset(words), references)


@dataclass(frozen=True)
class QuestionFacts:
    """What a question says: words, numbers (also those that its words imply), and every `X is a Y`."""

    words: frozenset[str]
    numbers: frozenset[Thing]
    relations: frozenset[Relation]

    @property
    def things(self) -> frozenset[Thing]:
        """Its words and numbers."""
        return self.words | self.numbers


@lru_cache(maxsize=16384)
def facts_of_question(question: str) -> QuestionFacts:
    """Returns what a question says."""
    numbers = map(abs, numbers_of_question(question))
    return QuestionFacts(statement_of(question).words, frozenset(numbers), frozenset(relations_of(question)))


def is_reference(thing: Thing) -> bool:
    """Tells whether a thing is what a step found, `#1`, and neither a number nor a word."""
    return isinstance(thing, str) and thing.startswith("#")


def stem(word: str) -> str:
    """Returns a word without its ending: one stem for `types`, `typed` and `typing`, not meant to be read."""
    word = re.sub(r"['’]s?$", "", word.casefold())
    for ending, kept in (("ies", "y"), ("sses", "ss"), ("uses", "us"), ("shes", "sh"), ("ches", "ch")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + kept
    if word.endswith("s") and word[-2:-1] not in ("s", "u", "i", "") and len(word) > 3:
        word = word[:-1]
    for ending in ("ing", "ed"):
        start = word.removesuffix(ending)
        if start != word and len(start) > 2 and _VOWELS & set(start):
            word = start[:-1] if start[-1] == start[-2] and start[-1] not in "lsz" else start
            break
    return word.removesuffix("e") if len(word) > 3 else word


def _calculation(left: str, result: str) -> Calculation:
    spellings = dict.fromkeys((result, result.rstrip("%")))
    results = tuple(number for spelling in spellings for number in find_numbers(spelling))
    read = [parse_equation(f"{_arithmetic(left)}={spelling}") for spelling in spellings]
    equations = tuple(equation for equation in read if equation is not None and len(equation.operands) > 1)
    operands = equations[0].operands if equations else find_numbers(left)
    return Calculation(tuple(map(abs, operands)), results, equations)


def _arithmetic(text: str) -> str:
    """Returns the arithmetic that a text ends with, without units: `6 * 2` of `6 tubs * 2 tubes a tub`."""
    text = _WORDS_AROUND.sub(" ", _OF.sub("*", _TIMES.sub("*", text.translate(_MINUS))))
    return _NEXT_NUMBER.split(_NO_ARITHMETIC.sub(" ", text))[-1].strip()


def _lines(step: str) -> list[str]:
    """Returns the lines of a step; one that leaves its calculations to its `<<...>>` consists of those."""
    lines: list[str] = []
    for line in step.splitlines():
        outside, annotations = _ANNOTATION.sub("", line), _ANNOTATION.findall(line)
        plain = "=" in outside or not annotations
        lines += [outside] if plain else [annotation[2:-2] for annotation in annotations]
    return lines


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _relation(sentence: str) -> Relation | None:
    words = _words(sentence)
    if words and words[0] in _QUANTIFIERS:
        words = words[1:]
    if len(words) < 3 or words[1] not in _COPULAS:
        return None
    subject, rest = words[0], words[2:]
    negated = rest[0] == "not"
    rest = rest[negated:]
    rest = rest[1:] if rest and rest[0] in _QUANTIFIERS else rest
    if len(rest) != 1 or subject in STOP_WORDS or rest[0] in STOP_WORDS:
        return None
    return Relation(stem(subject), "not " * negated + stem(rest[0]))
