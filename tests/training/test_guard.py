"""NaN and Inf: no weight is touched, the batch can be inspected, and skipping goes on."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from latentplan.methods import losses as objectives
from latentplan.methods.losses import OBJECTIVES
from latentplan.modeling.loading import load_model
from latentplan.training import nonfinite as guard
from latentplan.training import run_training as runs
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.nonfinite import NonFiniteError
from latentplan.training.run_directory import MetricsFile


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def spoil(monkeypatch):
    """Makes the text objective non-finite at chosen calls, once a micro-batch, counted from 1."""

    def arrange(calls, how=lambda total: total * math.nan):
        seen = [0]

        def spoiled(system, forward, batch):
            total = objectives.text_loss_sum(system, forward, batch)
            seen[0] += 1
            return how(total) if seen[0] in calls else total

        monkeypatch.setitem(OBJECTIVES, "text", replace(OBJECTIVES["text"], loss_sum=spoiled))

    return arrange


@pytest.fixture
def states(monkeypatch):
    """Weights and optimizer state before and after each optimisation step of the next runs."""
    seen = []

    class Watching(MetricsFile):
        def on_step_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
            moments = [entry["exp_avg"].clone() for entry in optimizer.state.values()]
            seen.append(([p.detach().clone() for p in model.parameters()], moments))

    monkeypatch.setattr(runs, "MetricsFile", Watching)
    return seen


def unchanged(one, other):
    return all(
        len(first) == len(second) and all(map(torch.equal, first, second))
        for first, second in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("how", [lambda total: total * math.nan, lambda total: total + math.inf])
def test_a_step_that_is_not_finite_stops_the_run_and_leaves_its_batch(how, spoil, run_sft, tmp_path):
    spoil({6}, how)
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "max_latent_steps": 2}
    with pytest.raises(NonFiniteError, match="optimisation step 3: the loss is NaN or infinite"):
        run_sft(tmp_path / "run", **settings)
    folder = tmp_path / "run" / "nonfinite-3"
    report = json.loads((folder / "report-0.json").read_text())
    assert (report["step"], report["seed"]) == (3, 3)
    assert math.isfinite(float(report["losses"][0]))
    assert not math.isfinite(float(report["losses"][1]))
    assert not math.isfinite(float(report["parts"]["loss/text"]))
    assert math.isfinite(float(report["parts"]["loss/kl"]))
    assert len(report["texts"][1]["question"]) == 4
    assert all("<|start-latent|>" in question for question in report["texts"][1]["question"])
    assert report["nonfinite_weights"]["count"] == 0
    batch = load_file(folder / "inputs-0-1.safetensors")
    assert {"question_ids", "question_mask", "slot_mask", "noise_keys", "labels"} <= batch.keys()
    # The run goes on from its last checkpoint; without the spoiled objective it ends.
    spoil(())
    run = run_sft(tmp_path / "run", **settings)
    assert run.record["status"] == "finished"
    assert [row["step"] for row in rows_of(run.path)] == list(range(1, 7))


def test_the_gradients_that_are_not_finite_are_named(spoil, run_sft, tmp_path):
    spoil({2})
    with pytest.raises(NonFiniteError):
        run_sft(tmp_path / "run", method="atp_latent")
    report = json.loads((tmp_path / "run" / "nonfinite-2" / "report-0.json").read_text())
    gradients = report["nonfinite_gradients"]
    # The text objective reaches the backbone and the latent head, but neither the decoder nor the stop head.
    assert gradients["modules"] == ["reasoner.backbone", "reasoner.latent_head"]
    assert 0 < gradients["count"] < gradients["of"]


def test_a_gradient_alone_that_is_not_finite_stops_too(spoil, run_sft, tmp_path):
    spoil({2}, lambda total: total + 0 * torch.sqrt(total - total.detach()))
    with pytest.raises(NonFiniteError, match=r"the gradient \(with a finite loss\)"):
        run_sft(tmp_path / "run")


@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_skipping_leaves_weights_and_optimizer_as_they_are(max_grad_norm, spoil, states, run_sft, tmp_path):
    spoil({4, 5})
    run = run_sft(
        tmp_path / "run",
        on_nonfinite="skip",
        max_grad_norm=max_grad_norm,
        save_strategy="no",
        reset_optimizer=False,
    )
    same = [unchanged(*pair) for pair in pairwise(states)]
    assert same == [False, False, False, True, True, False, False, False]
    rows = rows_of(run.path)
    assert [row["skipped_steps"] for row in rows] == [0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert all(math.isfinite(row["loss"]) for row in rows if not row["skipped_steps"])
    assert all(torch.isfinite(p).all() for p in load_model(run.path).reasoner.parameters())
    assert (run.path / "nonfinite-4").is_dir()


def test_the_logged_loss_is_that_of_the_steps_that_had_one(spoil, run_sft, tmp_path):
    settings = {"save_strategy": "no", "optim": "sgd", "learning_rate": 1e-9, "curriculum_steps": [4]}
    settings |= {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 4}
    single = rows_of(run_sft(tmp_path / "single", **{**settings, "logging_steps": 1}).path)
    spoil({4})
    row = rows_of(run_sft(tmp_path / "skipping", on_nonfinite="skip", **settings).path)[0]
    expected = [line["loss"] for line in single[:4] if line["step"] != 2]
    assert row["loss"] == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert row["skipped_steps"] == 1


def test_skipping_without_end_stops(spoil, run_sft, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "MAX_SKIPPED_IN_A_ROW", 3)
    spoil(range(3, 100))
    with pytest.raises(NonFiniteError, match=r"step 5: .* 3 times in a row"):
        run_sft(tmp_path / "run", on_nonfinite="skip", save_strategy="no")


def test_the_choices_are_checked(run_sft, tmp_path):
    with pytest.raises(ValueError, match="on_nonfinite must be one of stop, skip, got 'ignore'"):
        run_sft(tmp_path / "run", on_nonfinite="ignore")


@pytest.fixture
def spoil_rl(monkeypatch):
    """Makes the loss of RL NaN at chosen calls."""

    def arrange(calls):
        seen, whole = [0], GRPOTrainer._loss

        def spoiled(self, system, batch):
            seen[0] += 1
            return whole(self, system, batch) * (math.nan if seen[0] in calls else 1.0)

        monkeypatch.setattr(GRPOTrainer, "_loss", spoiled)

    return arrange


def test_rl_stops_with_its_trajectories(spoil_rl, run_grpo, trained, tmp_path):
    spoil_rl({2})
    with pytest.raises(NonFiniteError, match="optimisation step 2"):
        run_grpo(tmp_path / "run", trained("atp_latent"))
    folder = tmp_path / "run" / "nonfinite-2"
    batch = load_file(folder / "inputs-0-0.safetensors")
    assert {"latents", "answer_ids", "answer_log_probs", "advantages", "chain_keys"} <= batch.keys()
    texts = json.loads((folder / "report-0.json").read_text())["texts"][0]
    assert (len(texts["question"]), len(texts["answer"])) == (4, 16)


def test_rl_skips(spoil_rl, states, run_grpo, trained, tmp_path):
    spoil_rl({2})
    run = run_grpo(
        tmp_path / "run", trained("atp_latent"), on_nonfinite="skip", save_strategy="no", max_steps=4
    )
    assert [unchanged(*pair) for pair in pairwise(states)] == [False, True, False]
    assert [row["skipped_steps"] for row in rows_of(run.path)] == [0, 1, 0, 0]
