from __future__ import annotations

import sys

from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.cli.lm_eval import completed
from latentplan.evaluation.lm_harness import TASKS

OURS = ["--include_path", str(TASKS)]


def test_model_and_tasks_are_filled_in():
    assert completed(["--tasks", "x"]) == [
        "--tasks",
        "x",
        *OURS,
        "--model",
        "latentplan",
        "--batch_size",
        "128",
    ]


def test_what_is_named_stays():
    words = ["run", "-M", "hf", "--batch_size=4", "--include_path", "mine"]
    assert completed(words) == words


def test_other_commands_and_help():
    assert completed(["ls", "tasks"]) == ["ls", "tasks", *OURS]
    assert completed(["run", "--help"]) == ["run", "--help"]
    assert completed([]) == []


def test_without_the_harness_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    result = CliRunner().invoke(app, ["lm_eval", "--tasks", "latentplan_svamp"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "pip install 'latentplan[lm-eval]'" in result.output


def test_task_files_are_shipped():
    names = {file.name for file in TASKS.glob("latentplan_*.yaml")}
    assert names == {f"latentplan_{name}.yaml" for name in ("gsm8k", "gsm_hard", "svamp", "multiarith")}
