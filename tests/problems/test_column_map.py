"""Rows with other column names, from every layout."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.problems.formats.own_data import mapped_reader
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.reading import read_problems

COLUMNS = {"question": "problem", "steps": "solution", "answer": "final"}
ROW = {"problem": "Ann has 3 pens and buys 4. How many?", "solution": "3+4 = <<3+4=7>>7 pens.", "final": "7"}
PROBLEM = Problem(ROW["problem"], ("<<3+4=7>>",), "7")


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path, rows):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.Table.from_pylist(rows), path)


WRITERS = {
    "rows.jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows)),
    "rows.json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    "rows.csv": write_csv,
    "rows.parquet": write_parquet,
    "parquet-without-a-suffix": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_takes_a_column_map(name, tmp_path):
    WRITERS[name](tmp_path / name, [ROW, {**ROW, "final": "8"}])
    read = read_problems(tmp_path / name, columns=COLUMNS)
    assert read == [PROBLEM, Problem(PROBLEM.question, PROBLEM.steps, "8")]


@pytest.mark.parametrize(
    ("solution", "chain", "steps"),
    [
        (["<<3+4=7>>", " twice "], None, ("<<3+4=7>>", "twice")),
        (["3+4 = <<3+4=7>>7 pens", "so 7"], "equations", ("<<3+4=7>>",)),
        (["3+4 = <<3+4=7>>7 pens", "so 7"], "sentences", ("3+4 = 7 pens", "so 7")),
        ("3+4 = <<3+4=7>>7\n7*2=<<7*2=14>>14", None, ("<<3+4=7>>", "<<7*2=14>>")),
        ("3+4 = <<3+4=7>>7\n\nso 7", "sentences", ("3+4 = 7", "so 7")),
        ("First add.\n Then stop.", None, ("First add.", "Then stop.")),
        ("First add.", "equations", ()),
        ("<<3+4=7>>\n#### 7", None, ("<<3+4=7>>",)),
        ("", None, ()),
        (None, None, ()),
    ],
)
def test_steps_are_a_list_or_one_text(solution, chain, steps):
    assert mapped_reader(COLUMNS, chain)({**ROW, "solution": solution}).steps == steps


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (" 7 ", "7"),
        (7, "7"),
        (7.0, "7"),
        (True, "yes"),
        ("so it is 12\n#### 1,012", "1012"),
        (r"hence $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("### no marker of ours", "### no marker of ours"),
    ],
)
def test_answers(value, answer):
    assert mapped_reader(COLUMNS)({**ROW, "final": value}).answer == answer


def test_one_column_may_hold_rationale_and_answer():
    row = {"problem": "How many?", "response": "3+4=<<3+4=7>>7\n#### 7"}
    expected = Problem("How many?", ("<<3+4=7>>",), "7")
    assert mapped_reader({"question": "problem", "answer": "response"})(row) == expected
    both = {"question": "problem", "answer": "response", "steps": "response"}
    assert mapped_reader(both)(row) == expected
    assert mapped_reader({"question": "problem", "answer": "response"})({**row, "response": "7"}).steps == ()


def test_fields_that_the_map_leaves_out_keep_their_names():
    row = {
        "problem": "On a clock of 11?",
        "steps": ["<<8+5=2>>"],
        "answer": "2",
        "m": 11,
        "all": [["<<8+5=2>>"]],
    }
    read = mapped_reader({"question": "problem", "modulus": "m", "plans": "all"})(row)
    assert read == Problem("On a clock of 11?", ("<<8+5=2>>",), "2", (("<<8+5=2>>",),), 11)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"solution": ...},
            r"'solution', which dataset_columns maps steps to, is missing \(found: problem, final\)",
        ),
        ({"problem": " "}, "'problem' holds an empty text"),
        ({"final": None}, "'final' must be text, not NoneType"),
        ({"final": "####"}, "nothing behind '####'"),
        ({"solution": [1]}, "'solution' must be a list of texts"),
        ({"solution": {"a": 1}}, "'solution' must be a list of texts"),
    ],
)
def test_broken_rows_name_file_line_and_column(change, reason, tmp_path):
    row = {name: value for name, value in {**ROW, **change}.items() if value is not ...}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=reason) as error:
        read_problems(path, columns=COLUMNS)
    assert (error.value.file, error.value.line) == (str(path), 2)


@pytest.mark.parametrize(
    ("columns", "chain", "reason"),
    [
        ({"problem": "question"}, None, "maps problem; it may map question, steps, answer"),
        ({"question": 3}, None, "name of a column for question, got 3"),
        ({"question": "problem"}, "facts", "no chain of facts; choose from: equations, sentences"),
    ],
)
def test_maps_that_make_no_sense(columns, chain, reason):
    with pytest.raises(DataError, match=reason):
        mapped_reader(columns, chain)


names = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)
texts = st.text(st.characters(categories=["L", "Zs"]), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(names, min_size=3, max_size=3, unique=True),
    st.lists(st.tuples(texts, st.lists(texts, max_size=3), st.integers()), min_size=1, max_size=4),
)
def test_a_map_undoes_any_renaming(tmp_path_factory, columns, problems):
    fields = dict(zip(("question", "steps", "answer"), columns, strict=True))
    path = tmp_path_factory.mktemp("renamed") / "rows.jsonl"
    WRITERS["rows.jsonl"](path, [dict(zip(columns, row, strict=True)) for row in problems])
    assert read_problems(path, columns=fields) == [
        Problem(question.strip(), tuple(map(str.strip, steps)), str(answer))
        for question, steps, answer in problems
    ]


def test_a_torn_parquet_file_is_reported(tmp_path):
    path = tmp_path / "rows.parquet"
    write_parquet(path, [ROW] * 10)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"rows.parquet:1: not valid Parquet.*truncated"):
        read_problems(path, columns=COLUMNS)


def test_parquet_without_pyarrow_names_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow: pip install -c constraints.txt -e '.\[datasets\]'"):
        read_problems(path, columns=COLUMNS)


def test_data_check_takes_the_map(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    given = ["data", "check", str(path), "--dataset_columns"]
    good = CliRunner().invoke(app, [*given, "{question: problem, steps: solution, answer: final}"])
    assert good.exit_code == 0, good.output
    assert "mapped columns, 1 good rows, 0 broken" in good.output
    unmapped = CliRunner().invoke(app, given[:-1])
    assert unmapped.exit_code == 1
    assert "dataset_columns" in unmapped.output
    broken = CliRunner().invoke(app, [*given, "question"])
    assert broken.exit_code == 1
    assert "must be a mapping" in broken.output
