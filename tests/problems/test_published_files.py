from __future__ import annotations

import os
from pathlib import Path

import pytest

from latentplan.problems.answers import numbers_match, parse_number
from latentplan.problems.check import check_file
from latentplan.problems.decontamination import (
    ContaminationError,
    find_overlap,
    question_template,
    refuse_overlap,
    remove_overlap,
)
from latentplan.problems.equations import parse_equation
from latentplan.problems.reading import FORMATS, format_of_file, read_problems
from latentplan.problems.sources import load_benchmark

SHARED = Path(
    os.environ.get("LATENTPLAN_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(),
    reason="the published data files are absent (LATENTPLAN_SHARED_DATA names their folder)",
)

# file, format, rows, rows without steps, share of chains whose last equation gives the answer
PUBLISHED = [
    ("gsm8k/train.jsonl", "gsm8k", 7473, 95, 0.948),
    ("gsm8k/test.jsonl", "gsm8k", 1319, 18, 0.928),
    ("gsm8k-aug/valid.txt", "gsm8k-aug", 500, 6, 0.943),
    ("gsm8k-aug/test.txt", "gsm8k-aug", 1319, 18, 0.928),
    ("gsm-hard/gsmhardv2.jsonl", "gsm-hard", 1319, 1319, None),
    ("svamp/SVAMP.json", "svamp", 1000, 1, 0.998),
    ("multiarith/multiarith.jsonl", "multiarith", 600, 600, None),
    ("mawps-asdiv/train.csv", "mawps-asdiv", 3138, 0, 0.988),
    ("prosqa/valid.json", "prosqa", 300, 0, None),
    ("prosqa/test.json", "prosqa", 500, 0, None),
    ("strategyqa/train.json", "strategyqa", 2061, 0, None),
    ("strategyqa/dev.json", "strategyqa", 229, 0, None),
]


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the published data files are not here: LATENTPLAN_SHARED_DATA"
)
@pytest.mark.parametrize(("file", "name", "rows", "stepless", "solved"), PUBLISHED)
def test_published_files(file, name, rows, stepless, solved):
    assert format_of_file(SHARED / file).name == name
    problems = read_problems(SHARED / file)
    assert len(problems) == rows
    assert sum(not problem.steps for problem in problems) == stepless
    for chain in FORMATS[name].chains:
        assert len(read_problems(SHARED / file, chain=chain)) == rows
    if solved is not None:
        ends = [(parse_equation(p.steps[-1]), parse_number(p.answer)) for p in problems if p.steps]
        right = [end for end in ends if None not in end and numbers_match(end[0].result, end[1])]
        assert len(right) / len(ends) >= solved


def test_every_published_row_passes_the_check():
    for file, name, *_ in PUBLISHED:
        report = check_file(SHARED / file, name)
        assert report.ok, report.errors[0]


def test_the_one_wrong_label_of_svamp_is_reported():
    (doubt,) = check_file(SHARED / "svamp/SVAMP.json").doubts
    assert (doubt.line, doubt.step, doubt.reason) == (5434, "<<2+3=5>>", "last result is not the answer")


def test_overlap_between_published_sets():
    train, test = (
        load_benchmark("gsm8k", file=SHARED / f"gsm8k/{split}.jsonl") for split in ("train", "test")
    )
    augmented = load_benchmark("gsm8k-aug", file=SHARED / "gsm8k-aug/test.txt")
    hard = load_benchmark("gsm-hard", file=SHARED / "gsm-hard/gsmhardv2.jsonl")
    assert find_overlap(train, test) == []
    assert remove_overlap(augmented, test) == []
    assert len(find_overlap(hard, test)) == 329  # a quarter of GSM-Hard kept its numbers
    assert len(find_overlap(hard, test, key=question_template)) == 1318


@pytest.mark.parametrize("chain", ["equations", "sentences"])
def test_a_column_map_reads_gsm8k_as_its_own_reader_does(chain):
    file, columns = SHARED / "gsm8k/test.jsonl", {"question": "question", "answer": "answer"}
    assert read_problems(file, columns=columns, chain=chain) == read_problems(file, chain=chain)


def test_training_on_gsm_hard_is_refused_where_gsm8k_is_held_out():
    hard = load_benchmark("gsm-hard", file=SHARED / "gsm-hard/gsmhardv2.jsonl")
    test = load_benchmark("gsm8k", file=SHARED / "gsm8k/test.jsonl")
    with pytest.raises(
        ContaminationError, match=r"329 of 1319 training problems .* set gsm8k: .* and 324 more"
    ):
        refuse_overlap(hard, {"gsm8k": test})
