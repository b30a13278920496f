"""Data sets of the hub, read by the real `datasets` package from local folders."""

from __future__ import annotations

import pytest

from latentplan.problems.check import check_file
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.sources import Reading, evaluation_set, parse_benchmark_argument

datasets = pytest.importorskip("datasets")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COLUMNS = {"question": "problem", "steps": "solution", "answer": "final"}
PROBLEMS = [
    Problem(f"Ann has {n} pens and buys 4. How many?", (f"<<{n}+4={n + 4}>>",), str(n + 4)) for n in range(5)
]


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """The folder owner/name: a train split in its default configuration, a test split in another."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    rows = [
        {"problem": each.question, "solution": list(each.steps), "final": each.answer} for each in PROBLEMS
    ]
    for split, part in (("train", rows[:3]), ("test", rows[3:])):
        parquet.write_table(arrow.Table.from_pylist(part), folder / f"{split}.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: [{split: train, path: train.parquet}]\n"
        "- config_name: small\n  data_files: [{split: test, path: test.parquet}]\n---\n"
    )
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_set_is_read_by_its_name(hub_folder, streaming):
    reading = Reading(split="train", columns=COLUMNS, streaming=streaming)
    scan = parse_benchmark_argument("owner/name").scan(reading)
    assert scan.source == "owner/name (train)"
    assert list(scan.outcomes) == list(enumerate(PROBLEMS[:3], start=1))
    assert (scan.fingerprint is None) == streaming  # a folder has no revision on the hub


def test_a_configuration_follows_a_colon(hub_folder):
    label, load = evaluation_set("owner/name:small", columns=COLUMNS, limit=1)
    assert label == "owner/name"
    assert load() == PROBLEMS[3:4]


def test_what_a_hub_set_does_not_have_is_named(hub_folder):
    argument = parse_benchmark_argument("owner/name")
    with pytest.raises(DataError, match=r"cannot load owner/name .*dev"):
        argument.load(split="dev", columns=COLUMNS)
    with pytest.raises(
        DataError, match=r"owner/name \(train\):1: the columns problem, solution, final tell no"
    ):
        argument.load(split="train")
    with pytest.raises(
        DataError, match=r"\(train\):1: column 'text', which .*found: problem, solution, final"
    ):
        argument.load(split="train", columns={"question": "text"})


def test_data_check_reads_a_hub_set(hub_folder):
    report = check_file("owner/name", columns=COLUMNS)
    assert report.ok
    assert (report.file, report.num_problems) == ("owner/name (train)", 3)


@pytest.mark.parametrize("name", ["data/missing.jsonl", "a/b/c", "owner/", "../x", "owner/name:"])
def test_names_that_are_no_hub_set(name, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # ../x may be a folder elsewhere
    with pytest.raises(DataError, match="neither a file, nor NAME"):
        parse_benchmark_argument(name)


def test_a_set_that_cannot_be_had_names_the_error(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot load nobody/nothing from the hub \(\w+: "):
        parse_benchmark_argument("nobody/nothing").load()
