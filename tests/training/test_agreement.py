"""The signal in a gradient: cosines by hand, and on a policy whose gradient is known to be noise or not."""

import json
import math

import pytest
import torch
from torch import nn

from latentplan.rewards import RewardSet
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.rl_diagnostics import add_to, agreement, gradient_agreement, gradients, scattered


def many_letters(prompts, completions, **kwargs):
    return [float(len(completion)) for completion in completions]


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.frozen = nn.Linear(1, 1, bias=False).requires_grad_(False)


def test_gradients_are_of_what_is_trained():
    module = TwoParts()
    losses = {
        "head": 3 * module.head.weight.sum(),
        "both": module.head.weight.sum() + 2 * module.body.weight.sum(),
        "none": torch.zeros(()),
    }
    found = gradients(losses, module)
    assert set(found) == {"head", "both"}
    assert {name: float(value) for name, value in found["head"].items()} == {
        "head.weight": 3,
        "body.weight": 0,
    }
    assert float(found["both"]["body.weight"]) == 2


def test_sums_are_in_float32_whatever_the_weights_are():
    total, ones = {}, {"weight": torch.ones(2, dtype=torch.bfloat16)}
    for _ in range(300):  # in bfloat16 256 + 1 is 256
        add_to(total, ones)
    assert total["weight"].tolist() == [300.0, 300.0]
    assert ones["weight"].tolist() == [1.0, 1.0]


def test_cosines_by_hand():
    def halves(*values):
        return {"head.weight": torch.tensor(values[:2]), "body.weight": torch.tensor(values[2:])}

    first = {"answers": halves(1.0, 0, 0), "latents": halves(0.0, 0, 1), "silent": halves(0.0, 0, 0)}
    second = {"answers": halves(1.0, 1, 0), "latents": halves(0.0, 0, -2), "silent": halves(0.0, 0, 0)}
    found = agreement(first, second, ["head", "body", "stop_head"])
    assert found == pytest.approx(
        {"answers": 1 / math.sqrt(2), "latents": -1, "head": 1 / math.sqrt(2), "body": -1}
    )


@pytest.fixture
def measured(make_system, as_loaded, grpo_config, mixed_problems, tmp_path):
    """The agreement that a trainer with these settings measures on six problems."""

    def measure(**settings):
        config = grpo_config(tmp_path / "run", save_strategy="no", **settings)
        loaded = as_loaded(make_system("atp_latent"))
        trainer = GRPOTrainer(loaded, config, mixed_problems, RewardSet([many_letters]))
        trainer.model.eval()
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        with trainer.compute_loss_context_manager():
            found = gradient_agreement(trainer, mixed_problems[:6])
        assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
        assert all(weight.grad is None for weight in trainer.model.parameters())
        assert not trainer._sums
        return found

    return measure


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_minibatches_of_any_size_give_the_same(loss_type, measured):
    # Of three questions a half: minibatches of 1, and of 8, more than there are.
    shared = {"latent_gradient": "pathwise", "loss_type": loss_type}
    alone = measured(**shared, per_device_train_batch_size=4)
    for settings in ({"per_device_train_batch_size": 32}, {"gradient_checkpointing": True}):
        found = measured(**{**shared, "per_device_train_batch_size": 4, **settings})
        # How kinds weigh against each other in the gradient of a part is taken from the first rollout.
        parts = [] if loss_type == "grpo" else ["backbone", "latent_head", "stop_head"]
        expected = {name: value for name, value in alone.items() if name not in parts}
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-3)
        assert found == pytest.approx(alone, abs=0.05)
    assert {"answers", "backbone", "latent_head"} <= set(alone)


def test_it_can_be_left_out(measured):
    assert measured(signal_problems=0) == measured(signal_problems=1) == {}


def test_mixed_precision_loses_no_gradient(measured):
    plain, mixed = measured(latent_gradient="pathwise"), measured(latent_gradient="pathwise", bf16=True)
    assert mixed == pytest.approx(plain, abs=0.1)


def test_a_run_measures_it_at_the_start_and_at_evaluations(run_grpo, trained, tmp_path):
    start = trained("atp_latent")
    reward = {"reward_funcs": [f"{__name__}:many_letters"], "latent_gradient": "pathwise"}
    evaluates = {"eval_strategy": "steps", "eval_steps": 2, "eval_dataset_size": 8}
    plain = run_grpo(tmp_path / "plain", start, **reward)
    run = run_grpo(tmp_path / "run", start, **reward, **evaluates)
    found = json.loads((run.path / "run.json").read_text())["starting_agreement"]
    assert {"answers", "backbone", "latent_head"} <= set(found)
    assert all(-1 <= value <= 1 for value in found.values())
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    evaluated = [row for row in rows if "eval_agreement/answers" in row]
    assert len(evaluated) == 3
    assert evaluated[0]["eval_latents/drift"] > 0
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in rows if "loss" in row]
    lines = (plain.path / "metrics.jsonl").read_text().splitlines()
    assert kept == [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_the_start_is_asked_about_problems_from_all_over_the_data():
    found = scattered(range(1000), 20)
    assert found == scattered(range(1000), 20)
    assert len(set(found)) == 20
    assert min(found) < 200 < 800 < max(found)
    assert sorted(scattered(range(3), 8)) == [0, 1, 2]
    assert scattered([], 8) == []


def test_labelled_problems_are_found_where_they_are_few():
    found = scattered(range(50_000), 128, lambda number: number < 400)
    assert len(found) == 128
    assert all(number < 400 for number in found)
