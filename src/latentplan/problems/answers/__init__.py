"""Kinds of answers, one file each: finding the answer in a text, and deciding whether it is right."""

from latentplan.problems.answers.answer_kind import (
    AnswerKind,
    answer_kind_named,
    answer_kinds,
    kind_in_file,
    kind_of,
)
from latentplan.problems.answers.extraction import (
    extract_answer,
    last_answer,
    last_boxed,
    normalise_answer,
)
from latentplan.problems.answers.number import NUMBER, answers_match
from latentplan.problems.answers.quantities import numbers_match, parse_number

__all__ = [
    "NUMBER",
    "AnswerKind",
    "answer_kind_named",
    "answer_kinds",
    "answers_match",
    "extract_answer",
    "kind_in_file",
    "kind_of",
    "last_answer",
    "last_boxed",
    "normalise_answer",
    "numbers_match",
    "parse_number",
]
