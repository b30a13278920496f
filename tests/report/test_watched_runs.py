"""What a run was warned of, and what it measured on validation problems, is in the report."""

import json

from latentplan.report.page import build_report
from latentplan.report.run_reader import ReportEntry


def write_run(folder, rows, **record):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"status": "finished", "method": "cot", **record}))
    (folder / "config.yaml").write_text("method: cot\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_warnings_and_validation_are_shown(tmp_path):
    rows = [
        {"step": 5, "loss": 2.0},
        {"step": 10, "loss": 1.0},
        {"step": 10, "eval_accuracy": 0.25, "eval_loss": 1.5},
        {"step": 20, "eval_accuracy": 0.75, "eval_loss": 0.5},
    ]
    warning = {"step": 10, "name": "loss_spike", "message": "the loss jumped to 9, from 2"}
    run = write_run(tmp_path / "cot", rows, warnings=[warning])
    page = build_report(tmp_path, [ReportEntry("cot", "CoT", run)]).read_text()
    assert "At step 10 of training: the loss jumped to 9, from 2." in page
    assert "Validation while training" in page
    assert "Validation: accuracy, greedy. CoT: 0.25 at step 10, 0.75 at step 20." in page


def test_runs_without_either_have_neither(tmp_path):
    run = write_run(tmp_path / "cot", [{"step": 5, "loss": 2.0}])
    page = build_report(tmp_path, [ReportEntry("cot", "CoT", run)]).read_text()
    assert "Validation while training" not in page
    assert "of training:" not in page


def test_what_carries_signal_in_rl_is_drawn(tmp_path):
    rows = [
        {"step": step, "loss": 0.1}
        | {"eval_variance/latents": 0.25, "eval_variance/answers": 0.75}
        | {"eval_agreement/latent_head": step / 20, "eval_latents/drift": step / 10}
        for step in (10, 20)
    ]
    run = write_run(tmp_path / "rl", [{"step": 5, "reward": 0.1}, *rows], kind="grpo")
    page = build_report(tmp_path, [ReportEntry("rl", "RL", run)]).read_text()
    assert "latents: 0.25 at step 10, 0.25 at step 20; answers: 0.75 at step 10" in page
    assert "Signal in the gradient: agreement of two halves of a batch. latent head: 0.5 at step 10" in page
    assert "Distance of the latents&#39; means from the start, in σ. RL: 1 at step 10, 2 at step 20." in page
