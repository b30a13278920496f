"""Files as users have them: CSV in its dialects, lists as pandas writes them, answers without chains."""

from __future__ import annotations

import gzip
import json

import pytest

from latentplan.problems.formats.own_data import own_problem
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.reading import format_of_file, read_problems, scan_problems

QUESTION = "She has 3 pens and buys 4. How many?"
CHAIN = ("<<3+4=7>>",)
SENTENCES = ("She has 3 pens.", "She buys 4, so 7.")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "CSV"])
def test_any_delimiter(tmp_path, delimiter, suffix):
    path = tmp_path / f"a.{suffix}"
    rows = [["question", "steps", "answer"], [f'"{QUESTION}, really; yes|no"', "<<3+4=7>>", "7"]]
    path.write_text("\n".join(delimiter.join(row) for row in rows), encoding="utf-8")
    assert read_problems(path) == [Problem(f"{QUESTION}, really; yes|no", CHAIN, "7")]


def test_one_column_alone_needs_no_delimiter(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\n12||<<3+4=7>> #### 7\n")
    assert read_problems(path, "gsm8k-aug") == [Problem("12", CHAIN, "7")]


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        (str(list(SENTENCES)), SENTENCES),
        (json.dumps(SENTENCES), SENTENCES),
        ("['She has 3 pens.' 'She buys 4, so 7.']", SENTENCES),
        ("['She has 3 pens.'\n 'She buys 4, so 7.']", SENTENCES),
        ("[\"It is 5 o'clock.\" 'So 7.']", ("It is 5 o'clock.", "So 7.")),
        ("['a', 'b c']", ("a", "b c")),
        ("[]", ()),
        ("", ()),
        ("<<3+4=7>>", CHAIN),
        ("She has 3 pens.\nShe buys 4, so 7.", SENTENCES),
        ("[sic] She has 7 [pens]", ("[sic] She has 7 [pens]",)),
        ("[" * 5000 + "]" * 5000, ("[" * 5000 + "]" * 5000,)),
    ],
)
def test_steps_in_one_text(written, steps):
    assert own_problem({"question": QUESTION, "steps": written, "answer": "7"}).steps == steps


def test_all_columns_of_our_own_format_survive_csv(tmp_path):
    import csv

    problem = Problem(QUESTION, CHAIN, "7", plans=(CHAIN, ("<<4+3=7>>",)), modulus=12, answer_kind="number")
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(problem.to_json()))
        writer.writeheader()
        writer.writerow(
            {
                name: json.dumps(value) if isinstance(value, list) else value
                for name, value in problem.to_json().items()
            }
        )
    assert read_problems(path) == [problem]


def rows_file(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_answers_without_chains_are_told_from_rationales(tmp_path):
    plain = {"question": QUESTION, "answer": "7"}
    rationale = {"question": QUESTION, "answer": "3+4 = <<3+4=7>>7\n#### 7"}
    assert read_problems(rows_file(tmp_path / "a.jsonl", plain)) == [Problem(QUESTION, (), "7")]
    assert read_problems(rows_file(tmp_path / "b.jsonl", rationale)) == [Problem(QUESTION, CHAIN, "7")]
    # The first row decides nothing that the others contradict.
    truncated = rows_file(tmp_path / "c.jsonl", plain, rationale, rationale)
    assert format_of_file(truncated).name == "gsm8k"
    first, *others = [outcome for _, outcome in scan_problems(truncated)]
    assert "####" in first.reason
    assert others == [Problem(QUESTION, CHAIN, "7")] * 2


def test_a_first_row_of_other_columns_does_not_decide(tmp_path):
    row = {"question": QUESTION, "steps": list(CHAIN), "answer": "7"}
    path = rows_file(
        tmp_path / "a.jsonl", {"Body": "", "Question": "", "Equation": "", "Answer": ""}, row, row
    )
    assert format_of_file(path).name == "latentplan"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"{}", mtime=0), r"compressed \(gzip\): unpack it first"),
        ("{}".encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"BZh9rest", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.txt"])
def test_files_that_are_not_read_are_named(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_problems(tmp_path / name)
