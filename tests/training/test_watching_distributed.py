"""Two processes decide alike about a NaN that only one of them has, and evaluate as one process does."""

import json

import pytest

from latentplan.training import trainer as evaluating

# The text objective of the second process is NaN in its third micro-batch.
PROGRAM = """
import math, os
from dataclasses import replace
from latentplan.cli.app import main
from latentplan.methods import losses as objectives
from latentplan.training import trainer as evaluating

evaluating.MAX_NEW_TOKENS = 8
whole, calls = objectives.text_loss_sum, [0]

def spoiled(system, forward, batch):
    calls[0] += system.training
    bad = os.environ["RANK"] == "1" and calls[0] == 3 and system.training
    return whole(system, forward, batch) * (math.nan if bad else 1.0)

objectives.OBJECTIVES["text"] = replace(objectives.OBJECTIVES["text"], loss_sum=spoiled)
main()
"""


@pytest.fixture
def settings(scratch_model):
    return {
        "method": "atp_latent",
        "max_latent_steps": 1,
        "curriculum_steps": [4],
        "learning_rate": 1e-9,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 3,
        "use_cpu": True,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "eval_dataset_size": 9,
        "report_to": "none",
    }


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_skip_together_and_evaluate_as_one(
    settings, scratch_model, run_sft, in_two_processes, monkeypatch, tmp_path
):
    monkeypatch.setattr(evaluating, "MAX_NEW_TOKENS", 8)
    data = {"dataset_config": "clock", "dataset_size": 40, "backbone_config": scratch_model.backbone_config}
    folder = tmp_path / "two"
    sizes = {"output_dir": str(folder), "per_device_train_batch_size": 4}
    in_two_processes(PROGRAM, "sft", {**settings, **data, **sizes}, "--on_nonfinite", "skip")
    rows = rows_of(folder)
    assert [row["skipped_steps"] for row in rows if "loss" in row] == [0, 0, 1, 0]
    # Each process has left its own half of the batch; the NaN is the second's.
    halves = [json.loads((folder / "nonfinite-3" / f"report-{rank}.json").read_text()) for rank in (0, 1)]
    assert [half["parts"]["loss/text"] == "nan" for half in halves] == [False, True]
    assert len(halves[0]["texts"][0]["question"]) == 4
    one = run_sft(tmp_path / "one", per_device_train_batch_size=8, **settings)
    evaluations = [[row for row in each if "eval_accuracy" in row] for each in (rows, rows_of(one.path))]
    for two_processes, one_process in zip(*evaluations, strict=True):
        for name in one_process.keys() - {"eval_seconds"}:
            assert two_processes[name] == pytest.approx(one_process[name], rel=1e-5), name
    samples = [(path / "samples.jsonl").read_text().splitlines() for path in (folder, one.path)]
    assert samples[0][:4] == samples[1][:4]
