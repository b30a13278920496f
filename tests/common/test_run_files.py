"""A run directory is read by one module, which forgives what is missing or broken."""

import json
import os
import re
from pathlib import Path

import pytest

import latentplan
from latentplan.common import run_files
from latentplan.common.run_files import (
    MODEL_TYPE,
    evaluations,
    home_of,
    is_finished,
    last_step,
    model_in,
    read_mapping,
    read_rows,
    result_file,
    result_of,
    results_folder,
    run_of,
    runs_in,
    trained_model,
    without_model,
)


@pytest.fixture
def run(tmp_path):
    """A finished run with a model and two log lines."""
    folder = tmp_path / "runs" / "sft"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": MODEL_TYPE}))
    (folder / "config.yaml").write_text("seed: 1\n")
    (folder / "run.json").write_text(json.dumps({"status": "finished", "created": "2026-01-02"}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    return folder


def test_a_run_and_its_model_lead_to_each_other(run):
    model = run / "model"
    assert model_in(run) == model_in(model) == model
    assert run_of(model) == run_of(run) == run
    assert home_of(model) == home_of(run) == run
    assert results_folder(model, "diagnosis") == run / "diagnosis"


def test_a_model_without_a_run_keeps_its_results_in_its_own_folder(run):
    alone = run.parent.parent / "alone"
    os.replace(run / "model", alone)
    assert (model_in(alone), run_of(alone)) == (alone, None)
    assert results_folder(alone) == alone / "evaluation"
    assert model_in(run) is None


def test_a_model_is_found_from_inside_its_folder(run, monkeypatch):
    monkeypatch.chdir(run / "model")
    assert run_of(Path(".")) == run


def test_names_of_runs_need_no_files():
    assert without_model(Path("a/sft/model")) == without_model(Path("a/sft")) == Path("a/sft")


def test_runs_are_listed_in_the_order_of_their_creation(run):
    for name, created in (("later", "2026-01-03"), ("earlier", "2026-01-01"), ("undated", None)):
        (run.parent / name).mkdir()
        (run.parent / name / "run.json").write_text(json.dumps({"created": created} if created else {}))
    assert [each.name for each in runs_in(run.parent)] == ["undated", "earlier", "sft", "later"]
    assert runs_in(run) == [run]


def test_finished_takes_the_status_and_the_model(run):
    assert is_finished(run)
    assert not is_finished(run, {"status": "failed"})
    os.replace(run / "model", run / "elsewhere")
    assert not is_finished(run)
    assert not is_finished(run / "nothing")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("run.json", "{", "cannot be read"),
        ("config.yaml", "a: [", "cannot be read"),
        ("run.json", "[1]", "holds no mapping"),
    ],
)
def test_a_broken_mapping_is_empty_and_noted(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    noted = []
    assert read_mapping(tmp_path / name, noted.append) == {}
    assert len(noted) == 1
    assert noted[0].startswith(reason)


def test_a_missing_mapping_is_empty_without_a_note(tmp_path):
    noted = []
    assert read_mapping(tmp_path / "run.json", noted.append) == {}
    assert not noted


def test_broken_lines_are_passed_over_and_numbered(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n\n[2]\n{"a": 3}\n{"a": ')
    assert read_rows(file) == ([{"a": 1}, {"a": 3}], [3, 5])
    assert read_rows(tmp_path / "none.jsonl") == ([], [])


def test_the_last_step_is_zero_before_the_first(run, tmp_path):
    assert last_step(run) == 2
    assert last_step(tmp_path) == 0


def test_a_result_older_than_the_model_is_none(run):
    file, model = result_file(run, "gsm8k"), trained_model(run)
    file.parent.mkdir()
    file.write_text('{"num_problems": 4}')
    assert result_of(file, model) == {"num_problems": 4}
    os.utime(model, (file.stat().st_mtime + 10,) * 2)
    assert result_of(file, model) == {}


def test_evaluations_called_test_come_first(run):
    for stem in ("svamp", "test", "aqua"):
        file = result_file(run, stem)
        file.parent.mkdir(exist_ok=True)
        file.write_text('{"num_problems": 4}')
    result_file(run, "broken").write_text("{")
    noted = []
    found = evaluations(run, lambda name, reason: noted.append(name))
    assert [stem for stem, _ in found] == ["test", "aqua", "svamp"]
    assert noted == ["evaluation/broken.json"]


def test_no_other_module_spells_the_names_of_a_run_s_files():
    names = "run.json|config.yaml|metrics.jsonl|samples.jsonl"
    spelled = re.compile(rf"\"[^\"\n ]*({names.replace('.', '[.]')})\"|/ \"(model|evaluation)\"")
    package = Path(latentplan.__file__).parent
    others = [file for file in package.rglob("*.py") if file != Path(run_files.__file__)]
    assert [file for file in others if spelled.search(file.read_text(encoding="utf-8"))] == []
