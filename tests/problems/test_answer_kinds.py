"""Kinds of answers: told by the reference or named, one file each, one contract."""

from __future__ import annotations

import json
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.problems.answers import (
    NUMBER,
    answer_kind_named,
    answer_kinds,
    answers_match,
    extract_answer,
    kind_in_file,
    kind_of,
    normalise_answer,
    parse_number,
)
from latentplan.problems.fingerprint import fingerprint
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.reading import read_problems
from latentplan.rewards import get_reward

CHOICE = answer_kind_named("choice")
SNIPPETS = [
    "9", "9.0", "1,080", "$-18", "3/4", "½", "25%", "2.5 million", "yes", "No.", "TRUE", "false", "E", "(E)",
    "Ann is a zorp.", "ann is a  ZORP", r"2\sqrt{2}", r"\sqrt{8}", "x+1", "1+x", "nine", "9 eggs", "−3", "",
]  # fmt: skip
TEXTS = (
    st.sampled_from(SNIPPETS)
    | st.text(max_size=10)
    | st.text(alphabet="0123456789.,/-+$% eExy^\\{}sqrtpifac", max_size=12)
)

OWN_KIND = '''
from latentplan.problems.answers import AnswerKind
from latentplan.problems.benchmarks import Benchmark
from latentplan.problems.formats.columns import text_column
from latentplan.problems.formats.row_format import Format
from latentplan.problems.problem import Problem


class Sorted(AnswerKind):
    """Letters in any order."""

    name = "sorted"

    def matches(self, predicted, reference):
        return sorted(predicted) == sorted(reference)


def anagram(row):
    question = text_column(row, "scrambled")
    return Problem(question, (), text_column(row, "word"), answer_kind="anagrams:Sorted")


ANAGRAMS = Benchmark(Format.told_by("anagrams", "scrambled word", sentences=anagram), "anagrams", "nowhere")
Nothing = 3
'''


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "anagrams.py").write_text(OWN_KIND)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("anagrams", None)
    answer_kind_named.cache_clear()


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("9", "number"),
        ("-$1,080.50", "number"),
        ("9 eggs", "number"),
        ("yes", "yes_no"),
        ("False.", "yes_no"),
        (r"2\sqrt{2}", "expression"),
        ("x+1", "expression"),
        ("Ann is a zorp.", "text"),
        ("nine", "text"),
        ("", "number"),
        (None, "number"),
    ],
)
def test_the_reference_tells_its_kind(reference, name):
    assert kind_of(reference).name == name
    assert kind_of(reference, "choice") is CHOICE
    if reference is not None:
        assert Problem("Which?", (), reference).kind.name == name


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_kinds_that_references_tell_compare_as_answers_match(predicted, reference):
    kind = kind_of(reference)
    assert kind.matches(predicted, reference) == answers_match(predicted, reference)
    assert kind.extract(f"so ### {predicted}") == extract_answer(f"so ### {predicted}")
    number = parse_number(predicted)
    assert kind.vote(predicted) == (normalise_answer(predicted) if number is None else number)


def test_a_named_kind_overrules_what_the_reference_would_tell():
    assert Problem("Which word?", (), "7").kind.matches("7.0", "7")
    assert not Problem("Which word?", (), "7", answer_kind="text").kind.matches("7.0", "7")
    with pytest.raises(
        ValueError, match=f"no kind of answer 'word'; choose from: {', '.join(answer_kinds())}, or name"
    ):
        _ = Problem("Which?", (), "7", answer_kind="word").kind


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("### E", "E"),
        ("3 * 7 = 21\n#### (e)", "E"),
        ("### E) 21", "E"),
        ("### E. 21", "E"),
        ("### **E**", "E"),
        ("### option E", "E"),
        ("### The correct answer is (E).", "E"),
        (r"so \boxed{E}", "E"),
        ("### 21", "21"),
        ("### A pen", "A pen"),
        ("### AE", "AE"),
        ("E", None),
    ],
)
def test_choices_are_read_by_their_letter(completion, answer):
    assert CHOICE.extract(completion) == answer
    assert CHOICE.is_correct(completion, "E") == (answer == "E")
    assert not CHOICE.is_correct(completion, "A")


def test_what_leads_to_each_kind():
    seven = Fraction(7)
    results = [(seven, "7.0"), (seven, "8"), (seven, None), (None, "7")]
    assert [NUMBER.is_result(*each) for each in results] == [True, False, False, False]
    assert [CHOICE.is_result(*each) for each in results] == [False] * 4
    names = ("number", "expression", "text", "yes_no", "choice")
    assert [answer_kind_named(name).computed for name in names] == [True, True, False, False, False]
    assert [kind_of(answer).is_conclusion(answer) for answer in ("no", "7", "Ann")] == [True, False, False]
    assert CHOICE.is_conclusion("E")


def test_equal_answers_have_one_vote():
    assert CHOICE.vote("E") == CHOICE.vote(CHOICE.extract("### (e) 21"))
    assert CHOICE.vote("E") != CHOICE.vote("A")
    assert NUMBER.vote("18 dollars") == NUMBER.vote("18.0") != NUMBER.vote("19")


def test_the_kind_is_saved_only_where_it_is_named(tmp_path):
    plain, choice = Problem("What?", (), "7"), Problem("Which?", (), "B", answer_kind="choice")
    assert "answer_kind" not in plain.to_json()
    assert Problem.from_json(choice.to_json()) == choice
    assert fingerprint([choice]) != fingerprint([Problem("Which?", (), "B")])
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(each.to_json()) + "\n" for each in (plain, choice)))
    assert read_problems(file) == [plain, choice]
    mapped = {"question": "question", "answer_kind": "answer_kind"}
    (tmp_path / "mapped.jsonl").write_text(json.dumps(choice.to_json()) + "\n")
    assert read_problems(tmp_path / "mapped.jsonl", columns=mapped) == [choice]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("word", f"must be one of {', '.join(answer_kinds())}, not 'word'"),
        ("anagrams:Sorted", "a kind of your own goes with a benchmark of your own"),
        (3, "not 3"),
        ("choice", "the answer 'nine' is not of the kind 'choice'"),
        ("number", "the answer 'nine' is not of the kind 'number'"),
    ],
)
def test_rows_name_built_in_kinds_that_fit_and_never_code(own_module, tmp_path, kind, reason):
    row = {"question": "What?", "steps": [], "answer": "nine", "answer_kind": kind}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    for columns in (None, {"answer_kind": "answer_kind"}):
        with pytest.raises(DataError) as error:
            read_problems(tmp_path / "a.jsonl", columns=columns)
        assert reason in str(error.value)
    assert kind_in_file("nine", kind).name == ("text" if kind not in answer_kinds() else kind)
    assert "anagrams" not in sys.modules


def test_a_kind_and_a_benchmark_of_ones_own_are_one_file(own_module):
    from latentplan.problems.sources import load_benchmark, parse_benchmark_argument

    file = own_module / "data.jsonl"
    file.write_text('{"scrambled": "tca", "word": "cat"}\n')
    argument = parse_benchmark_argument(f"anagrams:ANAGRAMS={file}")
    (problem,) = argument.load()
    assert argument.label == "anagrams"
    assert load_benchmark("anagrams:ANAGRAMS", file=file) == [problem]
    assert problem.kind.name == "sorted"
    assert [problem.kind.is_correct(text, "cat") for text in ("### act", "### dog")] == [True, False]
    right = get_reward("accuracy")(
        ["tca"] * 2, ["### act", "### dog"], answer=["cat"] * 2, problems=[problem] * 2
    )
    assert right == [1.0, 0.0]
    assert Problem.from_json(problem.to_json()).kind is problem.kind


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("anagrams:Nothing", "there is no benchmark 'anagrams:Nothing'; choose from: "),
        ("anagrams:Absent", "there is no benchmark 'anagrams:Absent'"),
        ("anogram:ANAGRAMS", "there is no module 'anogram' on the Python path"),
    ],
)
def test_what_is_no_benchmark_of_ones_own(own_module, name, reason):
    from latentplan.problems.sources import parse_benchmark_argument

    with pytest.raises(DataError) as error:
        parse_benchmark_argument(name)
    assert reason in str(error.value)
    with pytest.raises(ValueError, match="no kind of answer 'anagrams:Nothing'"):
        answer_kind_named("anagrams:Nothing")


@pytest.mark.parametrize("text", ["answer" + " " * 50_000 + "?", "the answer is: (" + " (" * 50_000 + "?"])
def test_a_long_text_that_names_no_option_is_told_at_once(text):
    assert CHOICE.extract(text) is None  # with a cubic pattern: days
