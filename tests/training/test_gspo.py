"""GSPO: loss and gradient of three trajectories by hand, and where it is GRPO."""

import math
from types import SimpleNamespace

import pytest
import torch

from latentplan.rewards import RewardSet
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.latent_gradients import Actions
from latentplan.training.objectives import make_objective

# Two actions of a chain and two answer tokens each; the second chain stopped after one slot, and the last
# answer has one token. What is padding holds 9.
CHAINS = [[0.3, 0.1], [0.6, 9.0], [-0.2, -0.1]]
TOKENS = [[0.1, 0.3], [0.1, 0.2], [0.0, 9.0]]
MASKS = {
    "latents": torch.tensor([[1, 1], [1, 0], [1, 1]]),
    "answers": torch.tensor([[1, 1], [1, 1], [1, 0]]),
    "trajectories": torch.ones(3, 1).long(),
}
MEANS = [0.8 / 4, 0.9 / 3, -0.3 / 3]  # log-ratios per action


def loss_of(objective, chains, tokens, advantages):
    batch = SimpleNamespace(advantages=torch.tensor(advantages), has_reward=None, num_items={})
    batch.trajectories = SimpleNamespace(finished=torch.ones(3).bool())
    kinds = [
        Actions("latents", chains, torch.zeros(3, 2), MASKS["latents"]),
        Actions("answers", tokens, torch.zeros(3, 2), MASKS["answers"]),
    ]
    (joined,) = objective.clipped_actions(kinds, MASKS)
    return objective.surrogate(joined, joined.mask, batch)


@pytest.fixture
def objective(make_system, grpo_config, tmp_path):
    config = grpo_config(tmp_path / "run", objective="gspo", epsilon=0.05, epsilon_high=0.25)
    return make_objective(config, make_system("cot").reasoner)


def test_loss_and_gradient_of_three_trajectories_by_hand(objective):
    """Ratios e^0.2 = 1.22, e^0.3 = 1.35 and e^-0.1 = 0.90, clipped to 0.95 … 1.25."""
    chains = torch.tensor(CHAINS, requires_grad=True)
    tokens = torch.tensor(TOKENS, requires_grad=True)
    loss = loss_of(objective, chains, tokens, [1.0, -2.0, 3.0])
    ratios = [math.exp(mean) for mean in MEANS]
    # 1.22 is within the range; 1.35 is above it, which a negative advantage does not clip; 0.90 is below it,
    # which a positive one does not clip.
    assert loss.item() == pytest.approx(-(ratios[0] - 2 * ratios[1] + 3 * ratios[2]) / 3)
    loss.backward()
    # Each valid action of a trajectory has the same gradient, −A·s / (|y|·3).
    each = [-1.0 * ratios[0] / 12, 2 * ratios[1] / 9, -3 * ratios[2] / 9]
    wanted = torch.tensor(each).unsqueeze(1)
    torch.testing.assert_close(chains.grad, wanted * MASKS["latents"])
    torch.testing.assert_close(tokens.grad, wanted * MASKS["answers"])


def test_a_trajectory_is_clipped_as_a_whole(objective):
    chains = torch.tensor(CHAINS, requires_grad=True)
    tokens = torch.tensor(TOKENS, requires_grad=True)
    loss = loss_of(objective, chains, tokens, [1.0, 2.0, -3.0])
    assert loss.item() == pytest.approx(-(math.exp(0.2) + 2 * 1.25 - 3 * 0.95) / 3)
    loss.backward()
    for grad in (chains.grad, tokens.grad):
        assert not grad[1:].any()
        assert grad[0].tolist() == pytest.approx([-math.exp(0.2) / 12] * 2)


def test_advantages_are_those_of_the_group(objective):
    found = objective.advantages(torch.tensor([0.0, 2.0, 0.0, 2.0]), torch.ones(4).bool())
    torch.testing.assert_close(found, torch.tensor([-1.0, 1, -1, 1]) / (2 / math.sqrt(3) + 1e-4))


def even(prompts, completions, **columns):
    return [float(len(text) % 2 == 0) for text in completions]


@pytest.fixture
def make_trainer(make_system, as_loaded, grpo_config, mixed_problems, tmp_path):
    def build(method, **settings):
        torch.manual_seed(0)
        sizes = {"per_device_train_batch_size": 8, "num_iterations": 2, "save_strategy": "no"}
        config = grpo_config(tmp_path / "run", **{**sizes, **settings})
        return GRPOTrainer(as_loaded(make_system(method)), config, mixed_problems[:2], RewardSet([even]))

    return build


def loss_and_gradient(trainer):
    """After the policy has moved away from where it sampled."""
    batch = trainer._prepare_inputs({"indices": torch.arange(2)})
    with torch.no_grad():
        for weight in trainer.model.reasoner.parameters():
            weight += 0.002
    loss = trainer.compute_loss(trainer.model, batch)
    weights = [each for each in trainer.model.reasoner.parameters() if each.requires_grad]
    return batch, loss.detach(), torch.autograd.grad(loss, weights, allow_unused=True)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo", "dr_grpo"])
def test_it_is_grpo_where_each_trajectory_has_one_action(loss_type, make_trainer):
    """One answer token of a model without latents."""
    shared = {"max_completion_length": 1, "loss_type": loss_type, "beta": 0.1, "epsilon": 1e-3}
    batch, loss, gradient = loss_and_gradient(make_trainer("cot", **shared))
    _, other, same = loss_and_gradient(make_trainer("cot", objective="gspo", **shared))
    assert int(batch.trajectories.answer_mask.sum()) == 8
    assert batch.advantages.any()
    torch.testing.assert_close(other, loss)
    for mine, theirs in zip(same, gradient, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_with_more_actions_it_is_another_objective(make_trainer):
    _, loss, _ = loss_and_gradient(make_trainer("atp_latent", loss_type="grpo"))
    _, other, _ = loss_and_gradient(make_trainer("atp_latent", objective="gspo", loss_type="grpo"))
    assert abs(float(loss) - float(other)) > 1e-3


@pytest.mark.parametrize("gradient", ["score_function", "pathwise", "none"])
def test_the_ratio_is_the_geometric_mean_over_the_whole_trajectory(gradient, make_trainer):
    """Two answers share a chain, whose actions are part of both trajectories."""
    trainer = make_trainer(
        "atp_latent", objective="gspo", latent_gradient=gradient, answers_per_latent=2, max_log_ratio=50.0
    )
    batch, loss, _ = loss_and_gradient(trainer)
    t, old, objective = batch.trajectories, batch.old, trainer.objective
    with torch.no_grad():
        scores = objective.scores(trainer.model, t)
    stops = ((scores.stops - old.stops) * t.stop_mask).sum(dim=1)
    latents = ((scores.latents - old.latents) * t.slot_mask).sum(dim=1)
    stopped = t.stops.sum(dim=1)
    chains, count = {
        "score_function": (stops + latents, t.slot_mask.sum(dim=1) + stopped),
        "pathwise": (stops, t.stop_mask.sum(dim=1)),
        "none": (0 * stops, 0 * stopped),
    }[gradient]
    log_ratio = chains.repeat_interleave(2) + ((scores.answers - old.answers) * t.answer_mask).sum(dim=1)
    ratio = (log_ratio / (count.repeat_interleave(2) + t.answer_mask.sum(dim=1))).exp()
    expected = -torch.min(ratio * batch.advantages, ratio.clamp(0.8, 1.2) * batch.advantages).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)


def begins_with_the(prompts, completions, **columns):
    return [float(text.startswith("the")) for text in completions]


@pytest.mark.parametrize("gradient", ["score_function", "pathwise"])
def test_a_run_raises_its_reward(gradient, make_system, as_loaded, grpo_config, clock_problems, tmp_path):
    system = make_system("atp_latent", backbone={"initializer_range": 0.1})
    config = grpo_config(
        tmp_path / "run",
        objective="gspo",
        latent_gradient=gradient,
        per_device_train_batch_size=32,
        num_generations=8,
        max_steps=25,
        max_completion_length=1,
        learning_rate=0.01,
        save_strategy="no",
    )
    trainer = GRPOTrainer(as_loaded(system), config, clock_problems[:40], RewardSet([begins_with_the]))
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert sum(rewards[:3]) / 3 < 0.25
    assert sum(rewards[-5:]) / 5 > 0.8
