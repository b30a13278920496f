"""summary.json: its keys and values, and what becomes of pieces that are missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentplan.report import ReportEntry, build_report
from latentplan.report.page import find_entries
from latentplan.report.summary import summarise

KEYS = ["accuracy", "interval", "accuracy_sampled", "tokens", "coherence", "seconds"]


@pytest.fixture
def copied(runs, tmp_path: Path) -> tuple[Path, list[ReportEntry]]:
    parent, entries = runs
    shutil.copytree(parent, tmp_path / "runs")
    return tmp_path / "runs", [ReportEntry(e.name, e.title, tmp_path / "runs" / e.name) for e in entries]


def test_summary_has_exactly_its_keys(runs) -> None:
    parent, entries = runs
    summary = summarise(parent, entries, seconds=1234.5)
    assert list(summary) == ["seconds", "reconstruction", "methods"]
    assert list(summary["methods"]) == ["cot", "no_cot", "coconut", "atp_latent_sft", "atp_latent_rl"]
    assert all(list(method) == KEYS for method in summary["methods"].values())


def test_summary_repeats_what_was_measured(runs) -> None:
    parent, entries = runs
    summary = summarise(parent, entries, seconds=1234.5)
    for entry in entries:
        greedy = json.loads((entry.path / "evaluation/test-greedy.json").read_text())
        sampled = json.loads((entry.path / "evaluation/test-sampled.json").read_text())
        record = json.loads((entry.path / "run.json").read_text())
        assert summary["methods"][entry.name] == {
            "accuracy": greedy["accuracy"]["estimate"],
            "interval": [greedy["accuracy"]["low"], greedy["accuracy"]["high"]],
            "accuracy_sampled": sampled["accuracy"]["estimate"],
            "tokens": greedy["tokens"]["mean"],
            "coherence": greedy["coherence"] and greedy["coherence"]["strict"],
            "seconds": record["seconds"],
        }
    assert summary["seconds"] == 1234.5


def test_reconstruction_is_that_of_the_model_that_rl_started_from(runs) -> None:
    parent, entries = runs
    assert summarise(parent, entries)["reconstruction"] == 0.97
    assert summarise(parent, [e for e in entries if e.name != "atp_latent_rl"])["reconstruction"] == 0.97
    assert summarise(parent, entries[:2])["reconstruction"] is None


def test_of_several_starts_the_most_accurate_is_read_whatever_their_order(copied) -> None:
    parent, entries = copied
    for name in ("sft", "rl"):
        shutil.copytree(parent / f"atp_latent_{name}", parent / f"atp_latent_500_{name}")
    config = parent / "atp_latent_500_rl" / "config.yaml"
    config.write_text(config.read_text().replace("/atp_latent_sft", "/atp_latent_500_sft"))
    greedy = parent / "atp_latent_500_sft" / "evaluation" / "test-greedy.json"
    worse = json.loads(greedy.read_text())
    worse["accuracy"]["estimate"], worse["reconstruction"]["teacher_exact"] = 0.1, 0.5
    greedy.write_text(json.dumps(worse))
    few = [ReportEntry(name, name, parent / name) for name in ("atp_latent_500_sft", "atp_latent_500_rl")]
    assert summarise(parent, few)["reconstruction"] == 0.5
    for order in ([*entries, *few], [*few, *entries]):
        assert summarise(parent, order)["reconstruction"] == 0.97


def test_relative_paths_are_looked_up_below_the_parent(runs) -> None:
    parent, entries = runs
    relative = [ReportEntry(entry.name, entry.title, Path(entry.name)) for entry in entries]
    assert summarise(parent, relative) == summarise(parent, entries)


def test_what_was_not_measured_is_null(copied) -> None:
    parent, entries = copied
    shutil.rmtree(parent / "coconut")
    shutil.rmtree(parent / "cot" / "evaluation")
    methods = summarise(parent, entries)["methods"]
    assert methods["coconut"] == dict.fromkeys(KEYS)
    assert methods["cot"] == {**dict.fromkeys(KEYS), "seconds": 100.0}


def test_build_writes_the_summary_and_leaves_nothing_else_behind(copied) -> None:
    parent, entries = copied
    before = {path.name for path in parent.iterdir()}
    build_report(parent, entries, seconds=7.0)
    assert {path.name for path in parent.iterdir()} - before == {"report.html", "summary.json"}
    assert json.loads((parent / "summary.json").read_text()) == summarise(parent, entries, 7.0)


def test_entries_need_different_names(runs) -> None:
    parent, entries = runs
    with pytest.raises(ValueError, match="different names"):
        build_report(parent, [entries[0], entries[0]])


def test_entries_are_found_in_the_order_of_their_creation(copied) -> None:
    parent, _ = copied
    record = parent / "cot" / "run.json"
    record.write_text(json.dumps({"created": "2031-01-01T00:00:00+00:00"}))
    found = find_entries(parent)
    assert [entry.name for entry in found] == ["no_cot", "coconut", "atp_latent_sft", "atp_latent_rl", "cot"]
    assert [entry.title for entry in found][:3] == ["No-CoT", "Coconut", "ATP-Latent SFT"]
    assert [entry.name for entry in find_entries(parent / "coconut")] == ["coconut"]
    assert find_entries(parent / "coconut" / "evaluation") == []
