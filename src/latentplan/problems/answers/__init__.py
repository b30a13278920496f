"""Kinds of answers: finding the answer in a text, and deciding whether it is right."""

from latentplan.problems.answers.number import (
    answers_match,
    extract_answer,
    last_answer,
    last_boxed,
    normalise_answer,
    numbers_match,
    parse_number,
)

__all__ = [
    "answers_match",
    "extract_answer",
    "last_answer",
    "last_boxed",
    "normalise_answer",
    "numbers_match",
    "parse_number",
]
