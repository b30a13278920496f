"""The variance of rewards taken apart: against numbers by hand, simulations, and rollouts."""

import pytest
import torch

from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.rollout.variance_split import VarianceSplit, measure_variance, split_variance


def test_by_hand():
    # One question, two latents, two stops, two answers.
    rewards = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]]])
    # Answers: cell variances 1/2, 0, 0, 1/2. Stops: means (1/2, 1), (0, 1/2), variances 1/8 each.
    # Latents: means 3/4 and 1/4, variance 1/8.
    split = split_variance(rewards)
    assert split.answers == pytest.approx(1 / 4)
    assert split.stops == pytest.approx((2 / 8 - 1 / 4) / 2)
    assert split.latents == pytest.approx((4 / 8 - 2 / 8) / 4)
    assert split.total == pytest.approx(1 / 4 + 0 + 1 / 16)
    assert split.shares() == pytest.approx({"latents": 0.2, "stops": 0.0, "answers": 0.8})


def test_of_many_questions_is_the_mean_and_right_on_average():
    torch.manual_seed(0)
    size = (4000, 3, 2, 4)
    rewards = torch.randn(size[0], 1, 1, 1) * 5 + torch.randn(size[:2]).view(*size[:2], 1, 1) * 0.5
    rewards = rewards + torch.randn(size[:3]).unsqueeze(3) * 0.3 + torch.randn(size)
    split = split_variance(rewards)
    assert split.latents == pytest.approx(0.25, abs=0.02)
    assert split.stops == pytest.approx(0.09, abs=0.02)
    assert split.answers == pytest.approx(1.0, abs=0.02)


def test_without_stops_and_without_differences():
    rewards = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]])
    split = split_variance(rewards)
    assert split == VarianceSplit(latents=pytest.approx((2 / 8 - 1 / 4) / 2), stops=0.0, answers=0.25)
    assert set(split_variance(torch.ones(2, 2, 2, 2)).shares().values()) == {0.0}
    with pytest.raises(ValueError, match="two draws of latents and two answers, got 1 and 4"):
        split_variance(torch.zeros(2, 1, 2, 4))


@torch.no_grad()
def test_a_question_with_a_sample_without_a_reward_is_left_out():
    rewards = torch.randn(3, 4, 2, 2)
    expected = split_variance(rewards[[0, 2]])
    rewards[1, 2, 0, 1] = float("nan")
    assert split_variance(rewards) == expected
    assert split_variance(rewards[1:2]) == VarianceSplit(0.0, 0.0, 0.0)


def test_stops_are_drawn_again_for_the_same_latents(make_system, make_batch, mixed_problems):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems[:3])
    settings = {"seed": 1, "sampling": Sampling(max_new_tokens=4)}
    question = (system.reasoner.eval(), batch["question_ids"], batch["question_mask"], torch.arange(3))
    once = generate(*question, draws=4, answers=2, **settings)
    again = generate(*question, draws=4, stops=5, answers=2, **settings)
    chains = again.slot_mask.unflatten(0, (12, 5))
    lengths = chains.sum(dim=2)
    assert torch.equal(chains[:, 0, : once.slot_mask.shape[1]], once.slot_mask)
    assert int((lengths != lengths[:, :1]).any(dim=1).sum()) > 6
    latents = again.latents.unflatten(0, (12, 5))
    for chain, mask in zip(latents, chains, strict=True):
        both = (mask[0] * mask[3]).bool()
        torch.testing.assert_close(chain[0][both], chain[3][both], atol=1e-5, rtol=1e-5)
    first = again.answer_ids.unflatten(0, (12, 5, 2))[:, 0]
    assert torch.equal(first.flatten(0, 1)[:, : once.answer_ids.shape[1]], once.answer_ids)


def reward_of(kind):
    """A reward that depends on one source alone."""

    def rewards(problems, solutions, trajectories):
        assert len(problems) == len(solutions) == len(trajectories.answer_ids)
        first = trajectories.latents[:, 0, 0].repeat_interleave(trajectories.answers)
        number = {
            "latents": first,
            "stops": trajectories.num_latents.float(),
            "answers": (trajectories.answer_ids[:, 0] % 2).float(),
        }
        return number[kind].tolist()

    return rewards


@pytest.mark.parametrize("kind", ["latents", "stops", "answers"])
def test_a_model_s_rewards_come_from_where_they_do(kind, make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("atp_latent", initial_log_variance=0.0))
    split = measure_variance(model, mixed_problems, reward_of(kind), Sampling(max_new_tokens=2), batch_size=1)
    shares = split.shares()
    # Which stops are drawn depends on the latents too, and answers on all that is before them.
    assert shares[kind] > (0.9 if kind == "latents" else 0.4)
    whole = measure_variance(model, mixed_problems, reward_of(kind), Sampling(max_new_tokens=2))
    assert vars(whole) == pytest.approx(vars(split), abs=0.02)


def test_parts_of_the_problems_have_the_noise_of_the_whole(make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("atp_latent", initial_log_variance=0.0))
    given = (reward_of("stops"), Sampling(max_new_tokens=2))
    whole = vars(measure_variance(model, mixed_problems, *given))
    left = vars(measure_variance(model, mixed_problems[:2], *given))
    right = vars(measure_variance(model, mixed_problems[2:], *given, first=2))
    assert whole == pytest.approx({name: (2 * left[name] + 4 * right[name]) / 6 for name in whole}, abs=1e-4)


def test_models_without_a_stop_head_have_no_part_for_it(make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("coconut"))
    split = measure_variance(model, mixed_problems[:2], reward_of("answers"), Sampling(max_new_tokens=2))
    assert split.stops == 0
    assert split.shares()["answers"] > 0.8  # latents are points; the rest is chance
