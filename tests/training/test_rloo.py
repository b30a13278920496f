"""RLOO: loss and gradient of three trajectories by hand, TRL's formulas, and that a run raises its reward."""

import math
from types import SimpleNamespace

import pytest
import torch

from latentplan.modeling.sampling import Sampling
from latentplan.rewards import RewardSet
from latentplan.rollout.logprobs import score
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.latent_gradients import Actions
from latentplan.training.objectives import make_objective

REWARDS = [1.0, 0.0, 5.0]
NEW = [[0.1, 0.1], [0.3, 0.2], [-0.1, 0.0]]  # the last trajectory has one action


@pytest.fixture
def make_objective_of(make_system, grpo_config, tmp_path):
    def build(**settings):
        config = grpo_config(tmp_path / "run", objective="rloo", num_generations=3, **settings)
        return make_objective(config, make_system("cot").reasoner)

    return build


def loss_of(objective, new, advantages):
    """The loss of trajectories with these log-ratios; padding holds what must not matter."""
    masks = {"answers": torch.tensor([[1, 1], [1, 1], [1, 0]]), "trajectories": torch.ones(3, 1).long()}
    batch = SimpleNamespace(advantages=advantages, has_reward=None, num_items={})
    batch.trajectories = SimpleNamespace(finished=torch.ones(3).bool())
    kinds = [Actions("answers", new, torch.zeros(3, 2), masks["answers"])]
    (joined,) = objective.clipped_actions(kinds, masks)
    return objective.surrogate(joined, joined.mask, batch)


def test_the_advantage_is_the_reward_minus_the_mean_of_the_others(make_objective_of):
    found = make_objective_of().advantages(torch.tensor(REWARDS), torch.ones(3).bool())
    torch.testing.assert_close(found, torch.tensor([1 - 2.5, 0 - 3.0, 5 - 0.5]))


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo", "dr_grpo"])
def test_loss_and_gradient_of_three_trajectories_by_hand(loss_type, make_objective_of):
    """Ratios e^0.2 = 1.22, e^0.5 = 1.65 and e^-0.1 = 0.90, clipped to 0.8 … 1.2; advantages -1.5, -3, 4.5."""
    new = torch.tensor(NEW, requires_grad=True)
    advantages = torch.tensor([-1.5, -3.0, 4.5])
    loss = loss_of(make_objective_of(loss_type=loss_type), new, advantages)
    ratios = [math.exp(0.2), math.exp(0.5), math.exp(-0.1)]
    # A ratio above the range is not clipped where the advantage is negative, nor one within it.
    assert loss.item() == pytest.approx((1.5 * ratios[0] + 3 * ratios[1] - 4.5 * ratios[2]) / 3)
    loss.backward()
    rows = [1.5 * ratios[0] / 3, 3 * ratios[1] / 3, -4.5 * ratios[2] / 3]
    torch.testing.assert_close(new.grad, torch.tensor([[rows[0]] * 2, [rows[1]] * 2, [rows[2], 0.0]]))


def test_a_trajectory_beyond_the_range_is_clipped_as_a_whole(make_objective_of):
    new = torch.tensor(NEW, requires_grad=True)
    loss = loss_of(make_objective_of(epsilon_high=0.3), new, torch.tensor([1.0, 2.0, 0.0]))
    assert loss.item() == pytest.approx(-(math.exp(0.2) + 2 * 1.3) / 3)
    loss.backward()
    assert new.grad[1].tolist() == [0, 0]
    assert new.grad[0].tolist() == pytest.approx([-math.exp(0.2) / 3] * 2)


def even(prompts, completions, **columns):
    return [float(len(text) % 2 == 0) for text in completions]


@pytest.fixture
def make_trainer(make_system, as_loaded, grpo_config, mixed_problems, tmp_path):
    def build(method="cot", reward=even, **settings):
        sizes = {"per_device_train_batch_size": 8, "max_completion_length": 12, "num_iterations": 2}
        shared = {**sizes, "save_strategy": "no", "objective": "rloo"}
        config = grpo_config(tmp_path / "run", **{**shared, **settings})
        return GRPOTrainer(as_loaded(make_system(method)), config, mixed_problems[:2], RewardSet([reward]))

    return build


def test_loss_and_gradient_on_written_tokens_are_those_of_trl(make_trainer):
    """`RLOOTrainer._compute_loss` and its advantages, beta 0; TRL clamps no log-ratio."""
    trainer = make_trainer(max_log_ratio=50.0)
    batch = trainer._prepare_inputs({"indices": torch.arange(2)})
    with torch.no_grad():
        for weight in trainer.model.reasoner.parameters():
            weight += 0.002
    texts = trainer.loaded.tokenizer.batch_decode(batch.trajectories.answer_ids, skip_special_tokens=True)
    rewards = torch.tensor([even([], [text.strip()])[0] for text in texts]).view(2, 4)
    advantages = (rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / 3).flatten()
    torch.testing.assert_close(batch.advantages, advantages)
    mask = batch.trajectories.answer_mask
    new = score(trainer.model.reasoner, batch.trajectories, Sampling(max_new_tokens=12)).answers
    ratio = torch.exp((new * mask).sum(1) - (batch.old.answers * mask).sum(1))
    expected = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
    weights = [each for each in trainer.model.reasoner.parameters() if each.requires_grad]
    wanted = torch.autograd.grad(expected, weights)
    loss = trainer.compute_loss(trainer.model, batch)
    assert ((ratio < 0.8) | (ratio > 1.2)).any()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5, rel=1e-4)
    for mine, theirs in zip(torch.autograd.grad(loss, weights), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"latent_gradient": "pathwise", "likelihood_weight": 0.5}])
def test_the_ratio_is_of_latents_stops_and_tokens(settings, make_trainer):
    """Two answers share a chain: its actions are part of both trajectories."""
    trainer = make_trainer("atp_latent", answers_per_latent=2, latent_logprob="sum", **settings)
    batch = trainer._prepare_inputs({"indices": torch.arange(2)})
    with torch.no_grad():
        for weight in trainer.model.reasoner.parameters():
            weight += 1e-3
        objective, system = trainer.objective, trainer.model
        scores, _ = objective.scores_of_sampled(system, batch)
        losses = objective.losses(system, batch, step=0)
    t, old = batch.trajectories, batch.old
    chains = ((scores.stops - old.stops) * t.stop_mask).sum(dim=1)
    if not settings:
        chains = chains + ((scores.latents - old.latents) * t.slot_mask).sum(dim=1)
    log_ratio = chains.repeat_interleave(2) + ((scores.answers - old.answers) * t.answer_mask).sum(dim=1)
    ratio = log_ratio.clamp(-3, 3).exp()
    a = batch.advantages
    expected = -torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a).mean()
    assert losses["trajectories"].item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)
    assert set(losses) == {"trajectories", *(["likelihood"] if settings else [])}


def begins_with_the(prompts, completions, **columns):
    return [float(text.startswith("the")) for text in completions]


def test_a_run_raises_its_reward(make_system, as_loaded, grpo_config, clock_problems, tmp_path):
    system = make_system("atp_latent", backbone={"initializer_range": 0.1})
    config = grpo_config(
        tmp_path / "run",
        objective="rloo",
        per_device_train_batch_size=32,
        num_generations=8,
        max_steps=25,
        max_completion_length=1,
        learning_rate=0.01,
        latent_gradient="pathwise",
        save_strategy="no",
    )
    trainer = GRPOTrainer(as_loaded(system), config, clock_problems[:40], RewardSet([begins_with_the]))
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert sum(rewards[:3]) / 3 < 0.25
    assert sum(rewards[-5:]) / 5 > 0.8
    assert "log_ratio/trajectories" in trainer.state.log_history[0]


def test_a_baseline_of_another_kind_is_refused(make_trainer):
    for settings in ({"baseline": "none"}, {"scale_rewards": "batch"}, {"first_slot_of_best": True}):
        with pytest.raises(ValueError, match="objective rloo does not read"):
            make_trainer("atp_latent", **settings)
