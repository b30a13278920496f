"""Formats are told by their columns: by the largest signature, whatever order they are tried in."""

from __future__ import annotations

from itertools import permutations

import pytest

from latentplan.problems.formats.row_format import Format, format_of_sample
from latentplan.problems.problem import Problem, UnknownFormatError
from latentplan.problems.reading import FORMATS

# A row of every format, as it is published; of several where the file and the hub differ.
ROWS = {
    "aqua": [
        {"question": "Which?", "options": ["A)1", "B)2"], "rationale": "1+1 is 2.", "correct": "B"},
    ],
    "gsm-hard": [{"input": "How many?", "code": "def solution(): ...", "target": 3.0}],
    "gsm8k": [
        {"question": "How many?", "answer": "<<1+2=3>>3\n#### 3"},
        {"question": "How many?", "answer": "<<1+2=3>>3\n#### 3", "text": "noted by somebody"},
    ],
    "gsm8k-aug": [{"text": "How many?||<<1+2=3>> #### 3"}],
    "latentplan": [
        {"question": "How many?", "steps": ["<<1+2=3>>"], "answer": "3"},
        {
            "question": "Which?",
            "steps": [],
            "answer": "B",
            "plans": [],
            "modulus": None,
            "answer_kind": "choice",
        },
    ],
    "mawps-asdiv": [
        {
            "Question": "number0 and number1 ?",
            "Numbers": "1 2",
            "Equation": "+ number0 number1",
            "Answer": "3",
            "group_nums": "[0]",
            "Body": "number0 and number1",
            "Ques": "?",
        },
        {"Question": "number0 ?", "Numbers": "1 2", "Equation": "+ number0 number1", "Answer": "3"},
    ],
    "multiarith": [{"input": "How many?", "target": 3}, {"question": "How many?", "final_ans": "3"}],
    "prosqa": [
        {
            "question": "Is Ann a zorp?",
            "steps": ["Ann is a zorp."],
            "answer": "Ann is a zorp.",
            "idx_to_symbol": ["Ann"],
            "edges": [],
            "root": 0,
        }
    ],
    "strategyqa": [
        {
            "qid": "0",
            "question": "Could it?",
            "answer": True,
            "facts": ["It could."],
            "decomposition": ["Can it?"],
        }
    ],
    "svamp": [
        {"ID": "1", "Body": "1 and 2", "Question": "How many?", "Equation": "( 1.0 + 2.0 )", "Answer": 3.0}
    ],
}


def test_there_is_a_row_of_every_format():
    assert sorted(ROWS) == sorted(FORMATS)


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, rows in ROWS.items() for row in rows])
def test_rows_tell_their_format_in_any_order_of_the_formats(name, row):
    formats = list(FORMATS.values())
    for order in (formats, formats[::-1], sorted(formats, key=lambda each: len(each.chains))):
        assert format_of_sample([row], order).name == name
    for chain in FORMATS[name].chains:
        assert isinstance(FORMATS[name].reader(chain)(row), Problem)


def test_the_largest_signature_wins():
    formats = [Format.told_by(name, name.replace("_", " ")) for name in ("a", "a_b", "a_b_c", "d_e")]
    for order in permutations(formats):
        assert format_of_sample([{"a": 1, "b": 2, "x": 3}], order).name == "a_b"
        assert format_of_sample([dict.fromkeys("abcde")], order).name == "a_b_c"


def test_columns_that_fit_two_formats_equally_are_refused():
    row = {"question": "How many?", "answer": "#### 3", "final_ans": "3"}
    with pytest.raises(
        UnknownFormatError, match=r"may be of gsm8k or of multiarith; say which with NAME=FILE"
    ):
        format_of_sample([row], FORMATS.values())
