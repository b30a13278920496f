import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from latentplan.modeling.latent_heads import gaussian_kl, gaussian_log_prob, standard_normal_kl
from latentplan.training.rl_losses import (
    LOSS_TYPES,
    SCALE_REWARDS,
    clipped_surrogate,
    group_advantages,
    masked_action_mean,
    masked_constant_mean,
    masked_trajectory_mean,
    token_kl,
)


def close(actual, expected, **tolerance):
    torch.testing.assert_close(actual, torch.tensor(expected), **(tolerance or {"rtol": 1e-4, "atol": 1e-5}))


def test_group_advantages_by_hand():
    # Group 1: mean 1, deviation √((1 + 1)/(2 − 1)) = √2. Group 2: all equal, so 0.
    close(group_advantages(torch.tensor([[0.0, 2.0], [3.0, 3.0]]), eps=0.0001), [[-0.70706, 0.70706], [0, 0]])
    # Mean 0.5; deviation √(4·0.25/3) = 0.57735: 0.5/0.57745 = 0.86588.
    close(group_advantages(torch.tensor([1.0, 0, 0, 1]), 4), [0.86588, -0.86588, -0.86588, 0.86588])


def test_batch_scaling_divides_every_group_by_the_deviation_of_all():
    # All rewards 0, 2, 3, 3: mean 2, deviation √((4 + 0 + 1 + 1)/3) = √2; centred in groups −1, 1, 0, 0.
    advantages = group_advantages(torch.tensor([0.0, 2, 3, 3]), 2, SCALE_REWARDS["batch"], eps=0.0)
    close(advantages, [-0.70711, 0.70711, 0, 0])


def test_no_scaling_only_centres():
    close(group_advantages(torch.tensor([0.0, 2, 3, 3]), 2, SCALE_REWARDS["none"]), [-1.0, 1.0, 0, 0])


@pytest.mark.parametrize(("shape", "size"), [((5,), 2), ((4,), None), ((4,), 1), ((4, 1), None), ((4,), 0)])
def test_advantages_need_groups(shape, size):
    with pytest.raises(ValueError, match="2 or more trajectories"):
        group_advantages(torch.zeros(shape), size)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=8, max_size=8), st.sampled_from(sorted(SCALE_REWARDS)))
def test_advantages_of_a_group_sum_to_zero_and_keep_the_order(rewards, scale):
    rewards = torch.tensor(rewards)
    advantages = group_advantages(rewards, 4, SCALE_REWARDS[scale])
    assert advantages.shape == rewards.shape
    assert advantages.reshape(2, 4).sum(dim=1).abs().max() < 1e-2
    for scored, group in zip(advantages.reshape(2, 4), rewards.reshape(2, 4), strict=True):
        assert (scored[group.argsort()].diff() >= -1e-4).all()


def surrogate(ratios, advantages, mask=None, **options):
    log_probs = torch.tensor(ratios).log().requires_grad_()
    mask = torch.ones_like(log_probs) if mask is None else torch.tensor(mask)
    result = clipped_surrogate(
        log_probs, torch.zeros_like(log_probs), torch.tensor(advantages), mask, **options
    )
    (gradient,) = torch.autograd.grad(result.loss.sum(), log_probs)
    return result, gradient


def test_clipped_surrogate_by_hand():
    # ε = 0.2. A = 2: r = 0.5 → 1, 1.1 → 2.2, 1.5 → clipped at 1.2·2. A = −1: 0.5 → clipped at 0.8, 1.1, 1.5.
    result, gradient = surrogate([[0.5, 1.1, 1.5], [0.5, 1.1, 1.5]], [2.0, -1.0])
    close(result.loss, [[-1.0, -2.2, -2.4], [0.8, 1.1, 1.5]])
    assert result.clipped.tolist() == [[False, False, True], [True, False, False]]
    # d(−r·A)/d log π = −r·A, and 0 where clipped.
    close(gradient, [[-1.0, -2.2, 0], [0, 1.1, 1.5]])


def test_the_upper_bound_can_be_apart():
    result, _ = surrogate([[1.25, 1.4, 0.7]], [1.0], epsilon=0.2, epsilon_high=0.28)
    close(result.loss, [[-1.25, -1.28, -0.7]])
    result, _ = surrogate([[0.7]], [-1.0], epsilon=0.2, epsilon_high=0.28)
    close(result.loss, [[0.8]])


def test_the_gradient_at_the_old_policy_is_that_of_policy_gradient():
    result, gradient = surrogate([[1.0, 1.0], [1.0, 1.0]], [2.0, -1.0])
    close(gradient, [[-2.0, -2.0], [1.0, 1.0]])
    assert not result.clipped.any()


def test_the_log_ratio_is_clamped_only_beyond_its_bound():
    # Unclipped by ε (A < 0, r > 1): log r = 2.9 keeps its gradient, 3.1 and 5000 lose it and stay finite.
    log_probs = torch.tensor([[2.9, 3.1, 5000.0, -2.9, -5000.0]], requires_grad=True)
    zeros, ones = torch.zeros(1, 5), torch.ones(1, 5)
    advantages = torch.tensor([[-1.0, -1.0, -1.0, 1.0, 1.0]])
    result = clipped_surrogate(log_probs, zeros, advantages, ones)
    close(result.loss.detach(), [[math.exp(2.9), math.exp(3), math.exp(3), -math.exp(-2.9), -math.exp(-3)]])
    assert result.clipped.tolist() == [[False, True, True, False, True]]
    (gradient,) = torch.autograd.grad(result.loss.sum(), log_probs)
    close(gradient, [[math.exp(2.9), 0, 0, -math.exp(-2.9), 0]])
    wide = clipped_surrogate(log_probs, zeros, advantages, ones, max_log_ratio=5.0)
    close(wide.loss[0, 1].detach(), math.exp(3.1))


def test_padding_neither_counts_nor_poisons():
    log_probs = torch.tensor([[0.0, float("nan"), -float("inf")]], requires_grad=True)
    old = torch.tensor([[0.0, 0.0, -float("inf")]])
    result = clipped_surrogate(log_probs, old, torch.ones(1), torch.tensor([[1, 0, 0]]))
    close(result.loss.detach(), [[-1.0, 0, 0]])
    result.loss.sum().backward()
    close(log_probs.grad, [[-1.0, 0, 0]])


def test_half_precision_is_computed_in_single():
    half = torch.zeros(1, 1, dtype=torch.bfloat16)
    assert clipped_surrogate(half, half, half[0], half).loss.dtype == torch.float32
    assert gaussian_log_prob(half, half, half).dtype == torch.float32
    assert gaussian_kl(half, half, half, half).dtype == torch.float32
    assert standard_normal_kl(half, half).dtype == torch.float32
    assert token_kl(half, half).dtype == torch.float32
    assert masked_trajectory_mean(half, half).dtype == torch.float32
    assert group_advantages(torch.zeros(2, 2, dtype=torch.float64)).dtype == torch.float32


def test_token_kl_by_hand():
    # q = log π_ref − log π = log 2: 2 − 0.693147 − 1; q = −log 2: 0.5 + 0.693147 − 1; equal policies: 0.
    close(token_kl(torch.tensor([0.0, 0, 0]), torch.tensor([2.0, 0.5, 1]).log()), [0.306853, 0.193147, 0])


def test_token_kl_is_unbiased_over_the_policy():
    policy, reference = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.6, 0.1, 0.3])
    estimate = (policy * token_kl(policy.log(), reference.log())).sum()
    close(estimate, (policy * (policy / reference).log()).sum().item())


def test_the_corrected_token_kl_and_its_gradient_are_unbiased_over_an_older_policy():
    # Samples of π_old: without π/π_old neither the value nor the gradient is that of the divergence.
    old, reference = torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.6, 0.1, 0.3])
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    policy = logits.log_softmax(dim=0)
    exact = (policy.exp() * (policy - reference.log())).sum()
    estimate = (old * token_kl(policy, reference.log(), old.log())).sum()
    plain = (old * token_kl(policy, reference.log())).sum()
    torch.testing.assert_close(estimate, exact)
    gradients = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (estimate, exact, plain)]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert (plain - exact).abs() > 0.02
    assert (gradients[2] - gradients[1]).abs().max() > 0.05


LOSS = torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0], [100.0, 100.0, 100.0]])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_means_over_actions_by_hand():
    close(masked_trajectory_mean(LOSS, MASK), (4 / 2 + 5 / 1 + 0) / 3)
    close(masked_action_mean(LOSS, MASK), (1 + 3 + 5) / 3)
    close(masked_constant_mean(LOSS, MASK, max_length=4), (1 + 3 + 5) / (3 * 4))


def test_the_table_of_means():
    assert {name: mean(LOSS, MASK, max_length=4).item() for name, mean in LOSS_TYPES.items()} == {
        "grpo": pytest.approx(7 / 3),
        "bnpo": pytest.approx(3),
        "dapo": pytest.approx(3),
        "dr_grpo": pytest.approx(0.75),
    }
    assert LOSS_TYPES["dapo"](LOSS, MASK, num_items=torch.tensor(4.5)).item() == pytest.approx(9 / 4.5)
    with pytest.raises(ValueError, match="max_length"):
        LOSS_TYPES["dr_grpo"](LOSS, MASK)


def test_means_ignore_what_padding_holds():
    loss = torch.tensor([[1.0, float("nan")]])
    for mean in LOSS_TYPES.values():
        close(mean(loss, torch.tensor([[True, False]]), max_length=1), 1.0)
        for items in (None, torch.tensor(0.0)):
            close(mean(loss, torch.zeros(1, 2), max_length=1, num_items=items), 0.0)


def test_gaussian_log_prob_by_hand():
    # log N(3; 1, 4) = −½(4/4 + log 4 + log 2π) = −2.112086; log N(0; 0, 1) = −0.918939.
    z, mean = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    log_variance = torch.tensor([[4.0, 1.0]]).log()
    close(gaussian_log_prob(z, mean, log_variance), [-3.031024])


def test_gaussian_log_prob_agrees_with_torch_and_masks_slots():
    torch.manual_seed(0)
    z, mean, log_variance = torch.randn(3, 2, 4, 5).unbind(0)
    expected = Normal(mean, (log_variance / 2).exp()).log_prob(z).sum(dim=-1)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    torch.testing.assert_close(gaussian_log_prob(z, mean, log_variance), expected)
    torch.testing.assert_close(gaussian_log_prob(z, mean, log_variance, mask), expected * mask)


def test_gaussian_kl_by_hand():
    # KL(N(1, 4)‖N(0, 1)) = ½(1 + 4 − 1 − log 4) = 1.306853;
    # KL(N(1, 4)‖N(1, 2)) = ½(log 2 − log 4 + 4/2 − 1) = 0.153426.
    mean, log_variance = torch.tensor([1.0]), torch.tensor([4.0]).log()
    close(standard_normal_kl(mean, log_variance), [1.306853])
    close(gaussian_kl(mean, log_variance, mean, torch.tensor([2.0]).log()), [0.153426])
    close(gaussian_kl(mean, log_variance, torch.zeros(1), torch.zeros(1)), [1.306853])
    close(gaussian_kl(mean, log_variance, mean, log_variance), [0.0])


def test_gaussian_kl_agrees_with_torch():
    torch.manual_seed(0)
    mean_p, log_variance_p, mean_q, log_variance_q = torch.randn(4, 3, 5).unbind(0)
    p, q = Normal(mean_p, (log_variance_p / 2).exp()), Normal(mean_q, (log_variance_q / 2).exp())
    kl = gaussian_kl(mean_p, log_variance_p, mean_q, log_variance_q)
    torch.testing.assert_close(kl, kl_divergence(p, q))
    torch.testing.assert_close(
        standard_normal_kl(mean_p, log_variance_p),
        kl_divergence(p, Normal(torch.zeros(3, 5), torch.ones(3, 5))),
    )


@settings(deadline=None)
@given(st.lists(st.floats(-4, 4, width=32), min_size=4, max_size=4))
def test_divergences_are_never_negative(values):
    mean_p, log_variance_p, mean_q, log_variance_q = torch.tensor(values).reshape(4, 1).unbind(0)
    assert gaussian_kl(mean_p, log_variance_p, mean_q, log_variance_q) >= -1e-5
    assert standard_normal_kl(mean_p, log_variance_p) >= -1e-5
    assert token_kl(mean_p, mean_q) >= -1e-5
