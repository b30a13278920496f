"""AQuA-RAT: algebra with rationales, answered by the letter of one of five options.

{"question": "A pen costs 7. What do 3 cost?", "options": ["A)21", "B)10", "C)4", "D)24", "E)7"],
 "rationale": "Three pens cost 3 * 7 = 21.\nThe answer is A.", "correct": "A"}
"""

from __future__ import annotations

import re

from latentplan.problems.benchmarks.benchmark import Benchmark
from latentplan.problems.formats.columns import sentence_chain, text_column, texts_column
from latentplan.problems.formats.row_format import Format
from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import DataError, Problem

_OPTION = re.compile(r"([A-Z])\s*\)\s*(.*)", re.DOTALL)
_NAMES_AN_OPTION = re.compile(
    r"\W*+((so|hence|thus|therefore)\W++)?"
    r"((the\s++)?(correct\s++)?(answer|ans|option|choice)\W*+(is\b\W*+)?)*+[A-E]\W*+",
    re.IGNORECASE,
)


def aqua_problem(row: Row) -> Problem:
    """Reads a row of AQuA: the options stand under the question, a line each; the chain is the rationale's
    lines.

    A last line that only names the option is no step. Raises DataError on a broken row.
    """
    options = [_option(text) for text in texts_column(row, "options")]
    correct = text_column(row, "correct")
    letters = [letter for letter, _ in options]
    if letters.count(correct) != 1:
        raise DataError(
            f"column 'correct' must be the letter of one option ({', '.join(letters)}), not {correct!r}"
        )
    shown = [f"{letter}) {text}" for letter, text in options]
    steps = sentence_chain(text_column(row, "rationale"))
    if steps and _NAMES_AN_OPTION.fullmatch(steps[-1]):
        steps = steps[:-1]
    return Problem("\n".join([text_column(row, "question"), *shown]), steps, correct, answer_kind="choice")


def _option(text: str) -> tuple[str, str]:
    found = _OPTION.fullmatch(text)
    if found is None:
        raise DataError(f"column 'options' must hold a letter, a bracket and a text in each, not {text!r}")
    return found[1], found[2]


AQUA = Benchmark(
    Format.told_by("aqua", "question options rationale correct", sentences=aqua_problem),
    "algebra with five options and rationales (97467 train, 254 validation, 254 test)",
    "github.com/google-deepmind/AQuA",
    hub="deepmind/aqua_rat",
    config="raw",
    splits={"train": "train", "validation": "validation", "test": "test"},
)
