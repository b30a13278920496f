"""Short word problems: SVAMP, MultiArith, and MAWPS with ASDiv-A.

svamp        {"Body": "Ann had 8 pens. She lost 2", "Question": "How many are left?",
              "Equation": "( 8.0 - 2.0 )", "Answer": 6.0}
multiarith   {"input": ..., "target": 6}       or the columns question, final_ans
mawps-asdiv  Question "Ann had number0 pens . ...", Numbers "8.0 2.0",
             Equation "- number0 number1", Answer "6.0"
"""

from __future__ import annotations

import re

from latentplan.problems.answers import parse_number
from latentplan.problems.benchmarks.benchmark import TRAIN_AND_TEST, Benchmark
from latentplan.problems.formats.columns import fraction_column, number_column, text_column
from latentplan.problems.formats.formulas import chain_of, infix_formula, number_text, prefix_formula
from latentplan.problems.formats.row_format import Format
from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import DataError, Problem

_PLACEHOLDER = re.compile(r"\bnumber(\d+)\b")


def svamp_problem(row: Row) -> Problem:
    """Reads a row of SVAMP; the question is Body (closed by a full stop if it is open) and Question.

    Raises DataError on a broken row.
    """
    body, question = text_column(row, "Body"), text_column(row, "Question")
    body += "" if body.endswith((".", "?", "!")) else "."
    steps = chain_of(infix_formula(text_column(row, "Equation")))
    return Problem(f"{body} {question}", steps, number_column(row, "Answer"))


def multiarith_problem(row: Row) -> Problem:
    """Reads a row of MultiArith, which has no chain: `steps` is empty. Raises DataError on a broken row."""
    question, answer = ("question", "final_ans") if "final_ans" in row else ("input", "target")
    return Problem(text_column(row, question), (), number_column(row, answer))


def mawps_asdiv_problem(row: Row) -> Problem:
    """Reads a row of MAWPS with ASDiv-A, with its numbers filled in (56.0 becomes 56). Raises DataError if
    broken.

    Long decimals of the answer are rounded as those of the steps are, 0.8333333333333334 to 0.8333.
    """
    numbers = [_plain_number(token) for token in text_column(row, "Numbers").split()]
    question = _fill(text_column(row, "Question"), numbers)
    formula = prefix_formula(_fill(text_column(row, "Equation"), numbers).split())
    return Problem(question, chain_of(formula), number_text(fraction_column(row, "Answer")))


def _plain_number(token: str) -> str:
    number = parse_number(token)
    if number is None:
        raise DataError(f"column 'Numbers' holds {token!r}, which is not a number")
    return number_text(number)


def _fill(text: str, numbers: list[str]) -> str:
    def number(placeholder: re.Match[str]) -> str:
        index = int(placeholder[1])
        if index >= len(numbers):
            raise DataError(f"{placeholder[0]!r} has no number: column 'Numbers' holds {len(numbers)}")
        return numbers[index]

    return _PLACEHOLDER.sub(number, text)


SVAMP = Benchmark(
    Format.told_by("svamp", "Body Question Equation Answer", equations=svamp_problem),
    "one- and two-step problems, reworded to be tricky (700 train, 300 test; the file holds all 1000)",
    "github.com/arkilpatel/SVAMP",
    hub="ChilleD/SVAMP",
    splits=TRAIN_AND_TEST,
)
MULTIARITH = Benchmark(
    Format.told_by(
        "multiarith",
        "input target|question final_ans",
        equations=multiarith_problem,
        sentences=multiarith_problem,
    ),
    "problems of several steps (420 train, 180 test; the file holds all 600)",
    "the MAWPS repository",
    hub="ChilleD/MultiArith",
    splits=TRAIN_AND_TEST,
)
MAWPS_ASDIV = Benchmark(
    Format.told_by(
        "mawps-asdiv",
        "Question Numbers Equation Answer|Question Numbers Equation Answer Body",
        equations=mawps_asdiv_problem,
    ),
    "MAWPS and ASDiv-A, the usual training set for SVAMP (3138)",
    "github.com/arkilpatel/SVAMP, folder data/mawps-asdiv-a_svamp",
)
