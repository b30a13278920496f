from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.problems.answers import numbers_match, parse_number
from latentplan.problems.formats import rows as layouts
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.reading import format_of_file, read_problems, scan_problems

GSM8K = {
    "question": "Ann's hens lay 1,016 eggs. She eats 3 and sells the rest at $2 each. What does she get?",
    "answer": "She sells 1016 - 3 = <<1016-3=1013>>1013 eggs.\n\nThat is 1013 * 2 = $<<1013*2=2026>>2,026.\n"
    "#### 2,026",
}
SVAMP = {
    "ID": "x-1",
    "Body": "Ann had 8 pens and 4 cups. She lost 2 pens",
    "Question": "How many things are left?",
    "Equation": "( ( 8.0 + 4.0 ) - 2.0 )",
    "Answer": 10.0,
    "Type": "Subtraction",
}
PROSQA = {
    "question": "Ann is a wump. Every wump is a zorp. Is Ann a zorp or kump?",
    "answer": "Ann is a zorp.",
    "steps": ["Ann is a wump.", "Every wump is a zorp."],
    "idx_to_symbol": ["Ann", "wump", "zorp"],
    "edges": [[0, 1], [1, 2]],
    "root": 0,
    "target": 2,
    "neg_target": 1,
}
STRATEGYQA = {
    "qid": "0",
    "question": "Could a snail win a race against Ann?",
    "answer": False,
    "facts": ["A snail is slow.", "Ann runs."],
    "decomposition": ["How fast is a snail?", "Is #1 faster than Ann?"],
}
MAWPS = {
    "Question": "Ann had number0 pens in each of number1 boxes . She lost number2 . How many are left ?",
    "Numbers": "56.0 2 10.50",
    "Equation": "- * number0 number1 number2",
    "Answer": "101.5",
    "group_nums": "[1, 2]",
    "Body": "Ann had, of course",
    "Ques": "How many are left ?",
}
OWN = Problem(
    "Ann starts at 8 and adds 5 on a clock of 11. Where is she?",
    ("<<8+5=2>>",),
    "2",
    plans=(("<<8+5=2>>",), ("<<5+8=2>>",)),
    modulus=11,
)


def write(path: Path, content: object) -> Path:
    """A file that holds a text as it is, or a list of rows in the layout that the suffix tells."""
    if isinstance(content, str | bytes):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, content[0])
            writer.writeheader()
            writer.writerows(content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content, indent=2))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def one(path: Path, **arguments: str) -> Problem:
    (problem,) = read_problems(path, **arguments)
    return problem


def test_gsm8k(tmp_path):
    path = write(tmp_path / "a.jsonl", [GSM8K])
    problem = one(path)
    assert format_of_file(path).name == "gsm8k"
    assert problem == Problem(GSM8K["question"], ("<<1016-3=1013>>", "<<1013*2=2026>>"), "2026")
    sentences = one(path, chain="sentences")
    assert sentences.steps == ("She sells 1016 - 3 = 1013 eggs.", "That is 1013 * 2 = $2,026.")


def test_gsm8k_rationale_without_annotations_has_no_steps(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "How many?", "answer": "Nine.\n#### 9"}])
    assert one(path) == Problem("How many?", (), "9")


def test_gsm8k_aug_as_text_and_as_the_hub_has_it(tmp_path):
    text = write(
        tmp_path / "a.txt", "How many | now?||<<16-3-4=9>> <<9*200=1800>> #### 1,800\nNone?|| #### 0\n"
    )
    row = {
        "question": "How many | now?",
        "steps": ["<<16-3-4=9>>", "<<9*200=1800>>"],
        "answer": "1,800",
    }
    expected = Problem("How many | now?", ("<<16-3-4=9>>", "<<9*200=1800>>"), "1800")
    assert read_problems(text) == [expected, Problem("None?", (), "0")]
    assert one(write(tmp_path / "a.jsonl", [row]), format="gsm8k-aug") == expected


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (-9867630.0, "-9867630"),
        (14053029.666666666, "14053029.6666667"),
        (3244047.0999999996, "3244047.1"),
        (2.0107e-06, "0.0000020107"),
        (7, "7"),
        ("7.0", "7"),
    ],
)
def test_gsm_hard(tmp_path, target, answer):
    path = write(
        tmp_path / "a.jsonl", [{"input": "How many?", "code": "def solution(): ...", "target": target}]
    )
    assert one(path) == Problem("How many?", (), answer)
    assert numbers_match(parse_number(answer), Fraction(str(target)))


def test_svamp(tmp_path):
    expected = "Ann had 8 pens and 4 cups. She lost 2 pens. How many things are left?"
    path = write(tmp_path / "a.json", [SVAMP, {**SVAMP, "Body": SVAMP["Body"] + ".", "Answer": "10"}])
    assert read_problems(path) == [Problem(expected, ("<<8+4=12>>", "<<12-2=10>>"), "10")] * 2


def test_multiarith_as_file_and_as_the_hub_has_it(tmp_path):
    rows = [{"input": "How many?", "target": 39}, {"question": "How many?", "final_ans": " 39"}]
    for index, row in enumerate(rows):
        assert one(write(tmp_path / f"{index}.jsonl", [row])) == Problem("How many?", (), "39")


def test_mawps_asdiv(tmp_path):
    question = "Ann had 56 pens in each of 2 boxes . She lost 10.5 . How many are left ?"
    assert one(write(tmp_path / "a.csv", [MAWPS])) == Problem(
        question, ("<<56*2=112>>", "<<112-10.5=101.5>>"), "101.5"
    )


def test_mawps_asdiv_rounds_answers_as_it_rounds_steps(tmp_path):
    row = {**MAWPS, "Numbers": "5 6 0", "Equation": "/ number0 number1", "Answer": str(5 / 6)}
    problem = one(write(tmp_path / "a.csv", [row]))
    assert (problem.steps, problem.answer) == (("<<5/6=0.8333>>",), "0.8333")


def test_prosqa(tmp_path):
    problem = one(write(tmp_path / "a.json", [PROSQA]))
    assert problem == Problem(PROSQA["question"], tuple(PROSQA["steps"]), "Ann is a zorp.")


def test_strategyqa(tmp_path):
    path = write(tmp_path / "a.json", [STRATEGYQA])
    assert one(path) == Problem(STRATEGYQA["question"], tuple(STRATEGYQA["facts"]), "no")
    assert one(path, chain="decomposition").steps == tuple(STRATEGYQA["decomposition"])


def test_own_format_round_trip_and_limit(tmp_path):
    plain = Problem("How many?", ("<<1+1=2>>", "one more"), "Ann's 2")
    path = write(tmp_path / "a.jsonl", [OWN.to_json(), plain.to_json()])
    assert read_problems(path) == [OWN, plain]
    assert read_problems(path, limit=1) == [OWN]


texts = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() == text)


@settings(deadline=None)
@given(st.lists(st.builds(Problem, texts, st.lists(texts, max_size=3).map(tuple), texts), min_size=1))
def test_own_format_keeps_any_text(tmp_path_factory, problems):
    path = tmp_path_factory.mktemp("own") / "a.jsonl"
    assert read_problems(write(path, [problem.to_json() for problem in problems])) == problems


def without(row: dict, column: str) -> dict:
    return {key: value for key, value in row.items() if key != column}


BROKEN = [
    ("gsm8k", {**GSM8K, "answer": "no marker"}, "####"),
    ("gsm8k", {**GSM8K, "answer": "2 #### nine"}, "not a number"),
    ("gsm8k", {**GSM8K, "question": "  "}, "'question' holds an empty text"),
    ("gsm8k", {**GSM8K, "question": "caf\ud800"}, "half a character"),
    ("gsm8k", {**GSM8K, "question": 5}, "'question' must be text, not int"),
    ("gsm8k", without(GSM8K, "answer"), "'answer' is missing (found: question)"),
    ("gsm8k-aug", {"text": "How many?<<1+1=2>> #### 2"}, "||"),
    ("gsm8k-aug", {"text": "||<<1+1=2>> #### 2"}, "question is empty"),
    ("gsm8k-aug", {"text": "How many?||<<1+1=2>> and #### 2"}, "expected only <<...>>"),
    ("gsm8k-aug", {"text": "How many?||<<1+1="}, "truncated"),
    ("gsm8k-aug", {"question": "How many?", "steps": "<<1+1=2>>", "answer": "2"}, "list of texts"),
    ("gsm8k-aug", {"question": "How many?", "steps": [1], "answer": "2"}, "list of texts"),
    ("gsm-hard", {"input": "How many?", "code": "", "target": float("nan")}, "not a number"),
    ("gsm-hard", {"input": "How many?", "code": "", "target": None}, "must be a number, not NoneType"),
    ("gsm-hard", {"input": "How many?", "code": "", "target": True}, "must be a number, not bool"),
    ("svamp", without(SVAMP, "Body"), "'Body' is missing"),
    ("svamp", {**SVAMP, "Equation": "( 8.0 + 4.0"}, "cannot read the equation"),
    ("svamp", {**SVAMP, "Equation": "( ( + 4.0 )"}, "cannot read the equation"),
    ("svamp", {**SVAMP, "Equation": "( 8.0 ^ 4.0 )"}, "'^' is neither a number nor one of"),
    ("svamp", {**SVAMP, "Equation": "( 8.0 / 0.0 )"}, "divides by zero"),
    ("multiarith", {"input": "How many?", "target": "many"}, "'many', which is not a number"),
    ("mawps-asdiv", {**MAWPS, "Numbers": "56.0 2"}, "'number2' has no number"),
    ("mawps-asdiv", {**MAWPS, "Numbers": "56.0 two 3"}, "'two', which is not a number"),
    ("mawps-asdiv", {**MAWPS, "Equation": "- number0"}, "'-' lacks an operand"),
    ("mawps-asdiv", {**MAWPS, "Equation": "number0 number1"}, "found 2"),
    ("mawps-asdiv", {**MAWPS, "Equation": "+ " * 60 + "1 " * 61}, "more than 50 operators"),
    ("prosqa", {**PROSQA, "steps": ["Ann is a wump.", ""]}, "holds an empty text"),
    ("prosqa", {**PROSQA, "answer": ""}, "'answer' holds an empty text"),
    ("strategyqa", {**STRATEGYQA, "answer": "perhaps"}, "true or false"),
    ("strategyqa", {**STRATEGYQA, "answer": 1}, "true or false"),
    ("strategyqa", without(STRATEGYQA, "facts"), "'facts' is missing"),
    ("latentplan", {**OWN.to_json(), "plans": "<<8+5=2>>"}, "'plans' must be a list"),
    ("latentplan", {**OWN.to_json(), "plans": [[1]]}, "plans[0]"),
    ("latentplan", {**OWN.to_json(), "modulus": 0}, "'modulus'"),
    ("latentplan", {**OWN.to_json(), "steps": 7}, "list of texts"),
    ("latentplan", {**OWN.to_json(), "answer": float("inf")}, "holds Infinity"),
    ("latentplan", {**OWN.to_json(), "answer": "-Infinity"}, "holds Infinity"),
    ("latentplan", {**OWN.to_json(), "answer": "NaN"}, "holds NaN"),
    ("latentplan", {**OWN.to_json(), "modulus": float("nan")}, "integer of 2 or more"),
    ("latentplan", without(OWN.to_json(), "answer"), "'answer' is missing"),
]


@pytest.mark.parametrize(("name", "row", "reason"), BROKEN)
def test_broken_rows_name_file_line_and_reason(tmp_path, name, row, reason):
    path = write(tmp_path / "a.jsonl", [row])
    with pytest.raises(DataError) as error:
        read_problems(path, name)
    assert (error.value.file, error.value.line) == (str(path), 1)
    assert reason in error.value.reason


def test_a_scan_goes_on_after_broken_rows(tmp_path):
    rows = [json.dumps(GSM8K), "{broken", "[1]", "", json.dumps({"question": "Why?"}), json.dumps(GSM8K)]
    path = write(tmp_path / "a.jsonl", "\n".join(rows) + "\n")
    outcomes = list(scan_problems(path))
    assert [(line, isinstance(outcome, Problem)) for line, outcome in outcomes] == [
        (1, True),
        (2, False),
        (3, False),
        (5, False),
        (6, True),
    ]
    assert f"{path}:2: not valid JSON" in str(outcomes[1][1])
    assert "must be a JSON object with named columns, not list" in str(outcomes[2][1])


def test_truncated_json_lines(tmp_path):
    whole = json.dumps(GSM8K) + "\n" + json.dumps(GSM8K) + "\n"
    path = write(tmp_path / "a.jsonl", whole[:-40])
    first, (line, error) = scan_problems(path)
    assert isinstance(first[1], Problem)
    assert line == 2
    assert "truncated" in str(error)


def test_json_list_items_are_found_by_line(tmp_path):
    path = write(tmp_path / "a.json", [SVAMP, without(SVAMP, "Answer"), SVAMP])
    outcomes = list(scan_problems(path))
    lines = [number for number, text in enumerate(path.read_text().splitlines(), 1) if text == "  {"]
    assert [line for line, _ in outcomes] == lines
    assert isinstance(outcomes[1][1], DataError)
    assert outcomes[1][1].line == lines[1]


@pytest.mark.parametrize("cut", [30, 330, -3, -1])
def test_truncated_json_list(tmp_path, cut):
    whole = json.dumps([SVAMP, SVAMP], indent=2)
    path = write(tmp_path / "a.json", whole[:cut])
    *good, (line, error) = scan_problems(path, "svamp")
    assert all(isinstance(outcome, Problem) for _, outcome in good)
    assert isinstance(error, DataError)
    assert "truncated" in error.reason
    assert 1 <= line <= whole.count("\n") + 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_empty_files(tmp_path, name, content):
    with pytest.raises(DataError, match=r"a\.\w+:1: the file holds no rows"):
        read_problems(write(tmp_path / name, content))


def test_empty_json_list_and_header_only_csv(tmp_path):
    for name, content in (("a.json", "[ ]"), ("a.csv", "Question,Numbers,Equation,Answer\n")):
        with pytest.raises(DataError, match="no rows"):
            read_problems(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", json.dumps(GSM8K).encode() + b'\n{"question": "caf\xe9"}\n', 2),
        ("a.txt", b"How many?||<<1+1=2>> #### 2\ncaf\xe9||#### 2\n", 2),
        ("a.json", b'[\n{"Body": "caf\xe9"}]', 2),
        ("a.csv", b"Question,Numbers,Equation,Answer\ncaf\xe9,1,number0,1\n", 2),
    ],
)
def test_files_that_are_not_utf8(tmp_path, name, content, line):
    *_, (found, error) = scan_problems(write(tmp_path / name, content))
    assert found == line
    assert isinstance(error, DataError)
    assert "not UTF-8: byte 0xe9" in error.reason


def test_csv_with_a_short_row_and_an_open_quote(tmp_path):
    path = write(
        tmp_path / "a.csv", 'Question,Numbers,Equation,Answer\n"two\nlines",1,number0,1\na,b\n"open,1,1,1\n'
    )
    outcomes = list(scan_problems(path))
    assert [line for line, _ in outcomes] == [2, 4, 5]
    assert isinstance(outcomes[0][1], Problem)
    assert "2 values for the 4 columns" in str(outcomes[1][1])
    assert "not valid CSV" in str(outcomes[2][1])


@pytest.mark.parametrize("end", [",]", "] more", "", "x]"])
def test_json_list_with_a_wrong_end(tmp_path, end):
    path = write(tmp_path / "a.json", "[" + json.dumps(SVAMP) + "\n" + end)
    first, (line, error) = scan_problems(path)
    assert isinstance(first[1], Problem)
    assert isinstance(error, DataError)
    assert (error.line, line) == (1, 1)


def test_byte_order_mark_and_windows_line_breaks(tmp_path):
    content = b"\xef\xbb\xbf" + json.dumps(GSM8K).encode() + b"\r\n"
    assert one(write(tmp_path / "a.jsonl", content)).answer == "2026"


def test_files_that_cannot_be_read_at_all(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_problems(tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match="folder"):
        read_problems(tmp_path)
    with pytest.raises(DataError, match=r"a\.jsonl:1: the columns x tell no known format"):
        read_problems(write(tmp_path / "a.jsonl", [{"x": 1}]))
    with pytest.raises(DataError, match=r"no format 'gsm'; choose from: .*gsm8k"):
        read_problems(write(tmp_path / "a.jsonl", [GSM8K]), "gsm")
    with pytest.raises(DataError, match="svamp has no chain of sentences; choose from: equations"):
        read_problems(write(tmp_path / "a.json", [SVAMP]), chain="sentences")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.text(max_size=3), values, max_size=3)), st.sampled_from([None, 1]))
def test_a_json_list_is_read_in_parts(tmp_path_factory, items, indent):
    path = tmp_path_factory.mktemp("parts") / "a.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=indent is None) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "_WINDOW", 3)
        assert [row for _, row in layouts.rows_of_file(path)] == items


def test_a_json_list_of_no_objects_is_located(tmp_path):
    path = write(tmp_path / "a.json", "[\n123456,\n{},\n[1], ]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "_WINDOW", 4)
        rows = list(layouts.rows_of_file(path))
    assert [line for line, _ in rows] == [2, 3, 4, 4]
    assert "not int" in str(rows[0][1])
    assert rows[1][1] == {}
    assert "an item is missing after the last ','" in str(rows[3][1])
    (error,) = list(layouts.rows_of_file(write(tmp_path / "b.json", "[] []")))
    assert "nothing behind the final ']'" in str(error[1])
