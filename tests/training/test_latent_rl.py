"""Latent RL: its two losses by hand, who learns from which, and whole runs."""

import math

import pytest
import torch
from safetensors.torch import load_file

from latentplan.methods.system import LatentSystem
from latentplan.modeling.heads import ValueHead
from latentplan.rewards import RewardSet
from latentplan.training.latent_rl import LatentRLTrainer, mean_value, value_loss
from latentplan.training.rollouts import Minibatch

LOGITS = torch.tensor([[0.0, math.log(3)], [-math.log(3), 9.0]])  # probabilities 1/2, 3/4; 1/4, unused
MASK = torch.tensor([[1, 1], [1, 0]])


def test_the_value_loss_by_hand():
    """Right answers count 20 times: −20·ln ½, −20·ln ¾ of the first chain; −ln ¾ of the second."""
    found = value_loss(LOGITS, torch.tensor([1.0, 0.0]), MASK, 20.0)
    expected = (20 * math.log(2) + 20 * math.log(4 / 3) + math.log(4 / 3)) / 3
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_half_right_answers_count_half():
    found = value_loss(LOGITS[:1, :1], torch.tensor([0.5]), MASK[:1, :1], 3.0)
    assert found.item() == pytest.approx(0.5 * 3 * math.log(2) + 0.5 * math.log(2), rel=1e-5)


def test_the_value_of_a_policy_by_hand():
    """(1/2 + 3/4)/2 and 1/4: their mean is 7/16."""
    assert mean_value(LOGITS, MASK).item() == pytest.approx(7 / 16, rel=1e-5)


@pytest.fixture
def make_trainer(make_system, as_loaded, grpo_config, clock_problems, tmp_path):
    def build(method="coconut", **settings):
        config = grpo_config(
            tmp_path / "run", estimator="value", reward_funcs=["accuracy"], answers_per_latent=4, **settings
        )
        loaded = as_loaded(make_system(method))
        return LatentRLTrainer(loaded, config, clock_problems[:8], RewardSet(["accuracy"]))

    return build


@pytest.mark.parametrize("follows", [False, True])
def test_each_loss_reaches_its_own_weights_only(follows, make_trainer):
    trainer = make_trainer(value_warmup_steps=0 if follows else 1)
    system: LatentSystem = trainer.model
    batch = trainer._roll_out([0, 1, 2, 3], rollout=0)[0]
    batch = Minibatch(batch.trajectories, torch.tensor([1.0] * 8 + [0.0] * 8))
    trainer._loss(system, batch).backward()
    head = {name: weight.grad for name, weight in system.value_head.named_parameters()}
    policy = [weight.grad for weight in system.reasoner.parameters() if weight.grad is not None]
    assert any(bool(gradient.any()) for gradient in policy) == follows
    # The head's gradient is that of its own loss alone.
    latents = batch.trajectories.latents.detach()
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    system.zero_grad()
    value_loss(system.value_head(latents), labels, batch.trajectories.slot_mask, 20.0).backward()
    for name, weight in system.value_head.named_parameters():
        torch.testing.assert_close(head[name], weight.grad, atol=1e-5, rtol=1e-3)


def test_answers_without_a_reward_are_no_wrong_answers(make_trainer):
    """The label of a chain is the share among its other answers; a chain without any is not learned from."""
    trainer = make_trainer()
    batch = trainer._roll_out([0, 1, 2, 3], rollout=0)[0]
    rewards = torch.tensor(
        [1.0, float("nan"), float("nan"), 0.0] + [1.0] * 4 + [float("nan")] * 4 + [0.0] * 4
    )
    advantages = trainer._advantages(rewards, batch.trajectories.finished)
    batch = Minibatch(batch.trajectories, advantages, has_reward=~rewards.isnan())
    labels, labelled = trainer._labels(batch)
    assert labels.tolist() == [0.5, 1.0, 0.0, 0.0]
    assert labelled.tolist() == [True, True, False, True]
    found = trainer.losses(trainer.model, batch)["value_head"]
    latents, mask = batch.trajectories.latents, batch.trajectories.slot_mask
    logits = trainer.model.value_head(latents.detach())
    expected = value_loss(logits[labelled], labels[labelled], mask[labelled], 20.0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_the_head_has_its_own_learning_rate(make_trainer):
    trainer = make_trainer(learning_rate=1e-3, value_learning_rate=5e-2)
    optimizer = trainer.create_optimizer()
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    assert {rates[id(each)] for each in trainer.model.value_head.parameters()} == {5e-2}
    assert {rates[id(each)] for each in trainer.model.reasoner.parameters()} == {1e-3}


def test_the_head_alone_learns_while_it_warms_up(run_grpo, trained, weights_of, tmp_path):
    start = trained("coconut")
    run = run_grpo(
        tmp_path / "run", start, estimator="value", value_warmup_steps=6, answers_per_latent=4, max_steps=6
    )
    before, after = weights_of(start), weights_of(run.path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    head = load_file(run.path / "model" / "value_head" / "model.safetensors")
    assert set(head) == set(ValueHead(32).state_dict())
    logged = (run.path / "metrics.jsonl").read_text()
    assert all(f'"value/{name}"' in logged for name in ("loss", "mean", "error"))


def test_a_run_that_stopped_goes_on_with_the_same_head(
    run_grpo, trained, assert_same_weights, tmp_path, monkeypatch
):
    settings = {"estimator": "value", "answers_per_latent": 4, "max_steps": 4}
    whole = run_grpo(tmp_path / "whole", trained("coconut"), **settings)
    with monkeypatch.context() as patch:
        training_step, calls = LatentRLTrainer.training_step, []

        def interrupted(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return training_step(self, *args, **kwargs)

        patch.setattr(LatentRLTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_grpo(tmp_path / "part", trained("coconut"), **settings)
    part = run_grpo(tmp_path / "part", trained("coconut"), **settings)
    assert_same_weights(whole.path, part.path)


def test_a_model_without_latents_is_refused(make_trainer):
    with pytest.raises(ValueError, match="cot has none: start from a latent model"):
        make_trainer("cot")
