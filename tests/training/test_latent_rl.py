"""Latent RL: its two losses by hand, who learns from which, and whole runs."""

import math

import pytest
import torch
from safetensors.torch import load_file

from latentplan.modeling.latent_heads import ValueHead
from latentplan.rewards import RewardSet
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.objectives.latent_value import mean_value, value_loss
from latentplan.training.rollout_batch import Minibatch
from latentplan.training.trainable_model import LatentModelForTraining

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
            tmp_path / "run",
            objective="latent_value",
            reward_funcs=["accuracy"],
            answers_per_latent=4,
            **settings,
        )
        loaded = as_loaded(make_system(method))
        return GRPOTrainer(loaded, config, clock_problems[:8], RewardSet(["accuracy"]))

    return build


@pytest.mark.parametrize("follows", [False, True])
def test_each_loss_reaches_its_own_weights_only(follows, make_trainer):
    trainer = make_trainer(value_warmup_steps=0 if follows else 1)
    system: LatentModelForTraining = trainer.model
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


PUBLISHED = {
    "value_states": "hidden_states",
    "value_head_sizes": [16, 8, 4],
    "value_head_activation": "relu",
    "value_loss_trains_policy": True,
}


def slow_published_losses(system, trajectories, labels):
    """Each chain alone and unpadded, without a cache: the head on the hidden states *at* the fixed latents.

    Returns minus the mean sigmoid over all latents, and the binary cross-entropy, right answers weighted 20.
    """
    reasoner, maps = system.reasoner, [each for each in system.value_head.layers if hasattr(each, "weight")]
    losses, values = [], []
    for chain, (latents, label) in enumerate(zip(trajectories.latents, labels.tolist(), strict=True)):
        question = chain // trajectories.draws
        ids = trajectories.question_ids[question][trajectories.question_mask[question].bool()]
        inputs = torch.cat([reasoner.embed(ids[None]), latents[None].detach()], dim=1)
        state = reasoner.backbone.base_model(inputs_embeds=inputs).last_hidden_state[0, -len(latents) :]
        for index, layer in enumerate(maps):
            state = state @ layer.weight.T + layer.bias
            state = state.clamp(min=0) if index < len(maps) - 1 else state
        p = 1 / (1 + (-state[:, 0]).exp())
        values.append(p)
        losses.append(-(20 * label * p.log() + (1 - label) * (1 - p).log()))
    return -torch.cat(values).mean(), torch.cat(losses).mean()


def gradients(value, parameters):
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize("trains_policy", [True, False])
def test_the_published_gradient_by_an_independent_slow_computation(trains_policy, make_trainer):
    """The policy: of value and cross-entropy, in one pass over fixed latents. The head: of the latter."""
    trainer = make_trainer(**{**PUBLISHED, "value_loss_trains_policy": trains_policy})
    system: LatentModelForTraining = trainer.model
    trajectories = trainer._roll_out([0, 1, 2, 3], rollout=0)[0].trajectories
    assert trajectories.question_mask.sum(dim=1).unique().numel() > 1  # some questions are padded
    labels = torch.tensor([1.0, 0.0, 0.25, 1.0])
    batch = Minibatch(trajectories, labels.repeat_interleave(4))
    losses = trainer.losses(system, batch)
    value, judged = slow_published_losses(system, trajectories, labels)
    torch.testing.assert_close(losses["latents"], value, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(losses["value_head"], judged, atol=1e-5, rtol=1e-4)
    policy, head = list(system.reasoner.parameters()), list(system.value_head.parameters())
    expected = gradients(value + judged if trains_policy else value, policy) + gradients(judged, head)
    found = gradients(torch.stack(list(losses.values())).sum(), policy + head)
    assert any(bool(each.abs().max() > 1e-4) for each in expected[: len(policy)])
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_a_head_that_warms_up_teaches_the_policy_nothing(make_trainer):
    trainer = make_trainer(**PUBLISHED, value_warmup_steps=1)
    batch = trainer._roll_out([0, 1, 2, 3], rollout=0)[0]
    trainer._loss(trainer.model, batch).backward()
    grads = [weight.grad for weight in trainer.model.reasoner.parameters() if weight.grad is not None]
    assert not any(bool(gradient.any()) for gradient in grads)


def test_the_head_as_published_has_128_32_8_with_relu():
    head = ValueHead(64, [128, 32, 8], "relu")
    shapes = [tuple(each.weight.shape) for each in head.layers if hasattr(each, "weight")]
    assert shapes == [(128, 64), (32, 128), (8, 32), (1, 8)]
    assert [type(each).__name__ for each in head.layers] == ["Linear", "ReLU"] * 3 + ["Linear"]
    assert [type(each).__name__ for each in ValueHead(64).layers] == ["Linear", "GELU", "Linear"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value_states": "thoughts"}, r"value_states must be one of \['hidden_states', 'latents'\]"),
        ({"value_head_activation": "swish"}, "value_head_activation must be one of"),
        ({"value_head_sizes": [8, 0]}, r"value_head_sizes must be widths from 1 on, got \[8, 0\]"),
    ],
)
def test_settings_of_the_head_that_do_not_exist_are_refused(settings, message, make_trainer):
    with pytest.raises(ValueError, match=message):
        make_trainer(**settings)


def test_the_published_form_runs_greedily_with_one_answer(run_grpo, trained, weights_of, tmp_path):
    """Its own sampling: temperature 0, one completion a question."""
    start = trained("coconut")
    head = {**PUBLISHED, "value_head_sizes": [128, 32, 8]}  # small ones are soon dead behind a ReLU
    settings = {**head, "temperature": 0.0, "num_generations": 1, "reward_funcs": ["accuracy"]}
    run = run_grpo(tmp_path / "run", start, objective="latent_value", max_steps=2, **settings)
    before, after = weights_of(start), weights_of(run.path)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    saved = load_file(run.path / "model" / "value_head" / "model.safetensors")
    assert saved["layers.0.weight"].shape == (128, 32)


def test_answers_without_a_reward_are_no_wrong_answers(make_trainer):
    """The label of a chain is the share among its other answers; a chain without any is not learned from."""
    trainer = make_trainer()
    batch = trainer._roll_out([0, 1, 2, 3], rollout=0)[0]
    rewards = torch.tensor(
        [1.0, float("nan"), float("nan"), 0.0] + [1.0] * 4 + [float("nan")] * 4 + [0.0] * 4
    )
    advantages = trainer._advantages(rewards, batch.trajectories.finished)
    batch = Minibatch(batch.trajectories, advantages, has_reward=~rewards.isnan())
    labels, labelled = trainer.objective.labels(batch)
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
        tmp_path / "run",
        start,
        objective="latent_value",
        value_warmup_steps=6,
        answers_per_latent=4,
        max_steps=6,
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
    settings = {"objective": "latent_value", "answers_per_latent": 4, "max_steps": 4}
    whole = run_grpo(tmp_path / "whole", trained("coconut"), **settings)
    with monkeypatch.context() as patch:
        training_step, calls = GRPOTrainer.training_step, []

        def interrupted(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return training_step(self, *args, **kwargs)

        patch.setattr(GRPOTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_grpo(tmp_path / "part", trained("coconut"), **settings)
    part = run_grpo(tmp_path / "part", trained("coconut"), **settings)
    assert_same_weights(whole.path, part.path)


def test_a_model_without_latents_is_refused(make_trainer):
    with pytest.raises(ValueError, match="cot has none: start from a latent model"):
        make_trainer("cot")
