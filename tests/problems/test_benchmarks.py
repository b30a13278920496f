from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from latentplan.problems.benchmarks import BENCHMARKS
from latentplan.problems.decontamination import find_overlap, question_template, remove_overlap
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.reading import FORMATS
from latentplan.problems.sources import BenchmarkArgument, load_benchmark, parse_benchmark_argument

GSM8K = {"question": "Ann has 2 pens and gets 3. How many?", "answer": "2+3=<<2+3=5>>5 pens\n#### 5"}
FROM_GSM8K = Problem(GSM8K["question"], ("<<2+3=5>>",), "5")
SVAMP = {
    "Body": "Ann had 8 pens. She lost 2",
    "Question": "How many are left?",
    "Equation": "( 8.0 - 2.0 )",
    "Answer": 6.0,
}


@pytest.fixture
def gsm8k_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text((json.dumps(GSM8K) + "\n") * 3)
    return path


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the `datasets` package: remembers what was asked for, gives the rows it was told."""
    module = ModuleType("datasets")
    module.asked, module.rows = [], []

    def load_dataset(name, config, *, split):
        module.asked.append((name, config, split))
        if isinstance(module.rows, Exception):
            raise module.rows
        return module.rows

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_every_benchmark_has_a_format_with_its_default_chain():
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.chain in FORMATS[name].chains


def test_from_a_file(gsm8k_file):
    assert load_benchmark(gsm8k_file) == [FROM_GSM8K] * 3
    assert load_benchmark(str(gsm8k_file), benchmark="gsm8k", limit=2) == [FROM_GSM8K] * 2
    (problem,) = load_benchmark("gsm8k", file=gsm8k_file, chain="sentences", limit=1)
    assert problem.steps == ("2+3=5 pens",)


def test_from_the_hub(hub):
    hub.rows = [GSM8K, GSM8K]
    assert load_benchmark("gsm8k", split="train") == [FROM_GSM8K] * 2
    assert load_benchmark("gsm8k", limit=1) == [FROM_GSM8K]
    assert hub.asked == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]


def test_the_only_split_of_gsm_hard_is_a_test_set(hub):
    hub.rows = [{"input": "How many?", "code": "", "target": -3.0}]
    assert load_benchmark("gsm-hard") == [Problem("How many?", (), "-3")]
    assert hub.asked == [("reasoning-machines/gsm-hard", None, "train")]


def test_broken_hub_rows_are_located(hub):
    hub.rows = [SVAMP, {**SVAMP, "Answer": "many"}]
    with pytest.raises(DataError, match=r"ChilleD/SVAMP \(test\):2: .*'many', which is not a number"):
        load_benchmark("svamp")


def test_no_network_names_the_way_out(hub):
    hub.rows = ConnectionError("offline")
    with pytest.raises(DataError, match=r"ConnectionError: offline.*pass a local file: svamp=FILE, from"):
        load_benchmark("svamp")


def test_no_datasets_package_names_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"-c constraints.txt -e '\.\[datasets\]', or .*svamp=FILE, from"):
        load_benchmark("svamp")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name_or_path": "prosqa"}, "prosqa is not on the hub: get its file from"),
        ({"name_or_path": "prosqa"}, "then pass prosqa=FILE"),
        ({"name_or_path": "gsm8k", "split": "dev"}, "no split 'dev'; choose from: train, test"),
        (
            {"name_or_path": "gsm9k"},
            f"neither a file nor a benchmark; choose from: {', '.join(BENCHMARKS)}",
        ),
        ({"name_or_path": "x.jsonl", "benchmark": "gsm9k"}, "no benchmark 'gsm9k'"),
        ({"name_or_path": "gsm8k", "file": "x.jsonl"}, "x.jsonl: no such file"),
    ],
)
def test_what_cannot_be_loaded(arguments, reason, hub):
    with pytest.raises(DataError) as error:
        load_benchmark(**arguments)
    assert reason in str(error.value)


def test_benchmark_arguments(gsm8k_file, tmp_path):
    assert parse_benchmark_argument("svamp") == BenchmarkArgument("svamp", None)
    assert parse_benchmark_argument("svamp=a=b.json") == BenchmarkArgument("svamp", Path("a=b.json"))
    assert parse_benchmark_argument(str(gsm8k_file)) == BenchmarkArgument(None, gsm8k_file)
    odd = tmp_path / "lr=1.jsonl"
    odd.write_text(json.dumps(GSM8K))
    assert parse_benchmark_argument(str(odd)) == BenchmarkArgument(None, odd)
    for wrong in ("", "gsm9k", "gsm9k=x.jsonl", "svamp=", "missing.jsonl"):
        with pytest.raises(DataError, match="neither a file, nor NAME or NAME=FILE"):
            parse_benchmark_argument(wrong)


def test_benchmark_arguments_load_and_are_labelled(gsm8k_file, hub):
    argument = parse_benchmark_argument(f"gsm8k={gsm8k_file}")
    assert argument.label == "gsm8k"
    assert argument.load(limit=1) == [FROM_GSM8K]
    assert parse_benchmark_argument(str(gsm8k_file)).label == "mine"
    assert parse_benchmark_argument(str(gsm8k_file)).load() == [FROM_GSM8K] * 3
    hub.rows = [GSM8K]
    assert parse_benchmark_argument("gsm8k").load(split="train") == [FROM_GSM8K]
    assert hub.asked == [("openai/gsm8k", "main", "train")]


def test_overlap_ignores_layout_and_on_demand_numbers():
    train = [Problem(text, (), "1") for text in ("Ann has 2 pens?", "Bob has three pens?", "Why?")]
    test = [Problem(text, (), "1") for text in (" ann has 2 PENS", "Bob has 4000 pens?")]
    assert find_overlap(train, test) == train[:1]
    assert remove_overlap(train, test) == train[1:]
    assert find_overlap(train, test, key=question_template) == train[:2]
    assert remove_overlap(train, iter(test), key=question_template) == train[2:]
