"""Baselines, invalid samples, groups without contrast, and whose first action learns, by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.modeling.loading import load_model
from latentplan.training.rl_losses import (
    BASELINES,
    SCALE_REWARDS,
    first_action_of_the_best,
    group_advantages,
    only_groups_with_contrast,
)

NAN = float("nan")
PLAIN = {"scale_rewards": SCALE_REWARDS["none"]}


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_leave_one_out_subtracts_the_mean_of_the_others():
    # 1 − (0 + 5)/2, 0 − (1 + 5)/2, 5 − (1 + 0)/2
    close(
        group_advantages(torch.tensor([[1.0, 0, 5]]), baseline=BASELINES["leave_one_out"], **PLAIN),
        [[-1.5, -3, 4.5]],
    )


def test_without_a_baseline_rewards_are_the_advantages():
    rewards = torch.tensor([[1.0, 0, 1]])
    torch.testing.assert_close(group_advantages(rewards, baseline=BASELINES["none"], **PLAIN), rewards)


def test_what_does_not_count_enters_no_mean_and_gets_nothing():
    rewards, valid = torch.tensor([[1.0, 3, 100], [2, 7, 9]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    close(group_advantages(rewards, valid=valid, **PLAIN), [[-1.0, 1, 0], [0, 0, 0]])
    # Of 1 and 3 the deviation is √2.
    close(group_advantages(rewards, valid=valid, eps=0.0)[:1], [[-0.70711, 0.70711, 0]])
    out = group_advantages(rewards, valid=valid, baseline=BASELINES["leave_one_out"], **PLAIN)
    close(out[:1], [[-2.0, 2, 0]])


@pytest.mark.parametrize(
    ("rewards", "advantages"),
    [
        ([1, 1, 1, None], [0, 0, 0, 0]),
        ([-1, -1, -1, None], [0, 0, 0, 0]),
        ([1, 0, None, None], [0.70711, -0.70711, 0, 0]),
        ([3, None, None, None], [0, 0, 0, 0]),
        ([None] * 4, [0, 0, 0, 0]),
    ],
)
def test_what_has_no_reward_is_neither_punished_nor_rewarded(rewards, advantages):
    values = torch.tensor([[NAN if reward is None else float(reward) for reward in rewards]])
    close(
        group_advantages(values, eps=0.0 if advantages[0] else 1e-4), [[float(each) for each in advantages]]
    )


@pytest.mark.parametrize("scale", sorted(SCALE_REWARDS))
@pytest.mark.parametrize("baseline", sorted(BASELINES))
def test_a_group_is_what_it_is_without_those_that_have_no_reward(baseline, scale):
    parts = {"baseline": BASELINES[baseline], "scale_rewards": SCALE_REWARDS[scale]}
    rewards = torch.tensor([[1.0, NAN, 4, 2, NAN]])
    found = group_advantages(rewards, **parts)
    alone = group_advantages(torch.tensor([[1.0, 4, 2]]), **parts)
    torch.testing.assert_close(found, torch.tensor([[alone[0, 0], 0, alone[0, 1], alone[0, 2], 0]]))
    # Beside a group of which nothing has a reward, and with one that is left out for another reason.
    both = torch.cat([rewards, torch.full((1, 5), NAN)])
    torch.testing.assert_close(group_advantages(both, **parts)[:1], found)
    assert not group_advantages(both, **parts)[1].any()
    left_out = group_advantages(rewards, valid=torch.tensor([[1, 1, 0, 1, 1]]), **parts)
    alone = group_advantages(torch.tensor([[1.0, 2]]), **parts)
    torch.testing.assert_close(left_out, torch.tensor([[alone[0, 0], 0, 0, alone[0, 1], 0]]))


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_advantages_without_some_rewards_are_those_of_trl(scale):
    """TRL 1.16: nanmean of the group; nanstd, unbiased, of the group or of all; 0 in the place of NaN."""
    rewards = torch.tensor([[1.0, NAN, 0, 0.5], [2.0, 1, NAN, NAN], [NAN, NAN, NAN, NAN]])
    known = [[value for value in group if value == value] for group in rewards.tolist()]
    everything = [value for group in known for value in group]
    expected = torch.zeros(3, 4)
    for row, group in enumerate(known[:2]):
        deviation = torch.tensor(group if scale == "group" else everything).std()
        centred = rewards[row] - sum(group) / len(group)
        expected[row] = (centred / (deviation + 1e-4)).nan_to_num()
    torch.testing.assert_close(group_advantages(rewards, scale_rewards=SCALE_REWARDS[scale]), expected)


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
def test_who_has_nobody_to_be_compared_with_gets_nothing(baseline):
    rewards, valid = torch.tensor([[1.0, 3, 100], [2, 7, 9]]), torch.tensor([[0, 0, 1], [0, 0, 0]])
    found = group_advantages(rewards, valid=valid, baseline=BASELINES[baseline])
    assert torch.equal(found, torch.zeros(2, 3))


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
@pytest.mark.parametrize("reward", [0.1, 1.6, 1 / 3])
def test_rounding_is_no_contrast(reward, baseline):
    for size in range(2, 17):
        found = group_advantages(torch.full((1, size), reward), baseline=BASELINES[baseline])
        assert torch.equal(found, torch.zeros(1, size)), size


@settings(deadline=None)
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=8, max_size=8),
    st.sampled_from(sorted(BASELINES)),
    st.sampled_from(sorted(SCALE_REWARDS)),
)
def test_counting_all_is_the_default_and_nothing_is_infinite(rewards, baseline, scale):
    rewards = torch.tensor(rewards)
    parts = {"baseline": BASELINES[baseline], "scale_rewards": SCALE_REWARDS[scale]}
    plain = group_advantages(rewards, 4, **parts)
    torch.testing.assert_close(group_advantages(rewards, 4, valid=torch.ones(8), **parts), plain)
    for valid in (torch.zeros(8), torch.eye(8)[3]):
        assert torch.isfinite(group_advantages(rewards, 4, valid=valid, **parts)).all()


def test_the_mean_over_all_groups_becomes_that_over_groups_with_contrast():
    advantages = torch.tensor([1.0, -1, 0, 0, 0, 0, 0.5, -0.5])
    close(only_groups_with_contrast(advantages, 2), [2.0, -2, 0, 0, 0, 0, 1, -1])
    assert torch.equal(only_groups_with_contrast(torch.zeros(4), 2), torch.zeros(4))


def test_the_first_action_learns_from_the_likeliest_good_chain():
    # The first question has two good chains, of mean log-probability −2 and −1; the second none.
    advantages = torch.tensor([1.0, 0.5, -1, -0.5, -0.5, -0.5])
    log_probs = torch.tensor([[-2.0, -2], [-1, 0], [-0.1, -0.1], [-1, -1], [-1, -1], [-1, -1]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [1, 1], [1, 1]])
    found = first_action_of_the_best(advantages, log_probs, mask, draws=3)
    close(found, [[0.0, 1], [0.5, 0.5], [0, -1], [-0.5, -0.5], [-0.5, -0.5], [-0.5, -0.5]])
    # The likeliest one has stopped before its first latent: the other good one moves it.
    found = first_action_of_the_best(advantages[:3], log_probs[:3], torch.tensor([[1, 1], [0, 1], [1, 1]]), 3)
    close(found[:, 0], [1.0, 0, 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "median"}, "baseline must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message, run_grpo, trained, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_grpo(tmp_path / "run", trained("atp_latent"), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"latent_gradient": "none"},
        {"mask_invalid_samples": True, "filter_groups": True, "baseline": "leave_one_out"},
        {"latent_gradient": "score_function", "first_slot_of_best": True},
        {"baseline": "none", "scale_rewards": "none"},
    ],
)
def test_every_schedule_trains(settings, run_grpo, trained, tmp_path):
    assert run_grpo(tmp_path / "run", trained("atp_latent"), max_steps=2, **settings).finished


def test_answers_alone_leave_the_heads_as_they_are(run_grpo, trained, tmp_path):
    start = trained("atp_latent")
    run = run_grpo(tmp_path / "run", start, max_steps=6, latent_gradient="none")
    before, after = (load_model(each).reasoner for each in (start, run.path))
    for head in ("latent_head", "stop_head"):
        old, new = getattr(before, head).state_dict(), getattr(after, head).state_dict()
        assert all(torch.equal(old[name], new[name]) for name in old), head
    old, new = before.backbone.state_dict(), after.backbone.state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old)
