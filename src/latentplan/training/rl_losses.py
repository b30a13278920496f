"""The mathematics of RL on one page: advantages, surrogates, means over actions, KL, spread of latents.

Pure functions of tensors, computed in float32 whatever comes in. An action is a latent slot, a stop decision,
a token of the answer or of a drawn plan; `mask` is 1 for actions that were taken and 0 for padding. The names
of options are TRL's. GRPO is arXiv:2402.03300, RLOO arXiv:2402.14740, Dr. GRPO arXiv:2503.20783, DAPO
arXiv:2503.14476, Latent-GRPO arXiv:2604.27998, ATP-Latent arXiv:2601.21598, CoLaR arXiv:2505.16552.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentplan.modeling.latent_heads import gaussian_kl
from latentplan.modeling.sampling import log_softmax
from latentplan.modeling.thinking import LatentChain


def group_std(rewards: Tensor, valid: Tensor, eps: float) -> Tensor:
    """Computes each group's standard deviation, plus `eps`: `[groups, G]` to `[groups, 1]`.

    GRPO, section 4.1.2 of arXiv:2402.03300; with G − 1 in the denominator, as in TRL.
    """
    count = valid.sum(dim=1, keepdim=True)
    mean = (rewards * valid).sum(dim=1, keepdim=True) / count.clamp(min=1)
    squares = ((rewards - mean).square() * valid).sum(dim=1, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt() + eps


def batch_std(rewards: Tensor, valid: Tensor, eps: float) -> Tensor:
    """Computes the standard deviation of all rewards of the batch, plus `eps`: `[groups, G]` to a scalar.

    Proposed by arXiv:2508.08221.
    """
    return group_std(rewards.reshape(1, -1), valid.reshape(1, -1), eps).squeeze()


def no_scaling(rewards: Tensor, valid: Tensor, eps: float) -> Tensor:
    """Returns 1, a scalar: dividing favours questions that are nearly always or never solved.

    Dr. GRPO, arXiv:2503.20783.
    """
    return torch.ones((), device=rewards.device)


SCALE_REWARDS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "group": group_std,
    "batch": batch_std,
    "none": no_scaling,
}
"""TRL's `scale_rewards`: what a centred reward is divided by; from `[groups, G]` rewards, valid mask, ε."""


def group_mean(rewards: Tensor, valid: Tensor) -> Tensor:
    """Computes the mean of each group, the trajectory itself included: `[groups, G]` to `[groups, 1]`.

    GRPO, section 4.1.2 of arXiv:2402.03300.
    """
    mean = (rewards * valid).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return _within(mean, rewards, valid)


def leave_one_out_mean(rewards: Tensor, valid: Tensor) -> Tensor:
    """Computes the mean of each trajectory's group without itself: `[groups, G]` to the same.

    RLOO, arXiv:2402.14740. The only valid trajectory of a group is compared with itself.
    """
    others = valid.sum(dim=1, keepdim=True) - valid
    mean = ((rewards * valid).sum(dim=1, keepdim=True) - rewards * valid) / others.clamp(min=1)
    return _within(mean, rewards, valid)


def _within(means: Tensor, rewards: Tensor, valid: Tensor) -> Tensor:
    """Clamps `means` between the lowest and the highest valid reward of their group.

    So equal rewards have exactly their own value as their mean: what rounding leaves of it would be divided
    by a standard deviation of about 0.
    """
    lowest = rewards.masked_fill(valid == 0, torch.inf).amin(dim=1, keepdim=True)
    highest = rewards.masked_fill(valid == 0, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(lowest <= highest, means.clamp(min=lowest, max=highest), means)


def no_baseline(rewards: Tensor, valid: Tensor) -> Tensor:
    """Returns 0, a scalar: trajectories are reinforced as far as they are rewarded, none is held off.

    With a reward of 0 or 1 and `scale_rewards: none` this is rejection sampling: right samples are imitated.
    """
    return rewards.new_zeros(())


BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "group": group_mean,
    "leave_one_out": leave_one_out_mean,
    "none": no_baseline,
}
"""What is subtracted from a reward; from `[groups, G]` rewards and valid mask."""


def group_advantages(
    rewards: Tensor,
    num_generations: int | None = None,
    scale_rewards: Callable[[Tensor, Tensor, float], Tensor] = group_std,
    eps: float = 1e-4,
    baseline: Callable[[Tensor, Tensor], Tensor] = group_mean,
    valid: Tensor | None = None,
) -> Tensor:
    """Computes A = (R − mean_G)/(std_G + ε): how much better a trajectory is than its question's others.

    GRPO, section 4.1.2 of arXiv:2402.03300. A group whose rewards are all equal gets 0.

    Args:
        rewards: `[groups, G]`, or `[groups·G]` with the trajectories of a question next to each other; NaN
            for trajectories without a reward, which are not valid, as in TRL 1.16.
        num_generations: G; needed for rewards of one dimension.
        scale_rewards: a value of `SCALE_REWARDS`, or a function like them.
        eps: keeps the quotient finite.
        baseline: a value of `BASELINES`, or a function like them.
        valid: in the shape of `rewards`, 0 for trajectories that enter no mean and get no advantage
            (Latent-GRPO's masking of invalid samples, arXiv:2604.27998); all with a reward by default.

    Returns:
        Advantages in the shape of `rewards`, float32; 0 for trajectories that are not valid.

    Raises:
        ValueError: the rewards do not fall into groups of G, or G is below 2.
    """
    size = rewards.shape[-1] if num_generations is None and rewards.dim() == 2 else num_generations
    if size is None or size < 2 or rewards.numel() % size:
        raise ValueError(
            f"rewards of shape {list(rewards.shape)} do not fall into groups of num_generations={size}; "
            "a group needs 2 or more trajectories"
        )
    grouped = rewards.float().reshape(-1, size)
    weights = (~grouped.isnan()).float()
    if valid is not None:
        weights = weights * valid.float().reshape(-1, size)
    grouped = grouped.masked_fill(weights == 0, 0.0)  # a NaN would outlive its weight of 0
    advantages = (grouped - baseline(grouped, weights)) / scale_rewards(grouped, weights, eps)
    return (advantages * weights).reshape(rewards.shape)


def only_groups_with_contrast(advantages: Tensor, num_generations: int) -> Tensor:
    """Multiplies advantages `[groups·G]` by groups / groups in which any differs from 0.

    The mean over all groups then is that over groups that teach something: DAPO's filter (arXiv:2503.14476,
    section 3.2) without drawing others in their place.
    """
    contrast = (advantages.reshape(-1, num_generations) != 0).any(dim=1).float().mean()
    return advantages / torch.where(contrast > 0, contrast, torch.ones_like(contrast))


def first_action_of_the_best(advantages: Tensor, log_probs: Tensor, mask: Tensor, draws: int) -> Tensor:
    """Gives each action its chain's advantage, the first action only in the likeliest of the better chains.

    Latent-GRPO's first-token selection (arXiv:2604.27998): if several good chains pull at one latent, it
    comes to lie between them, where nothing valid need be. Where a question has a chain of positive
    advantage that took its first action, the one with the highest mean log-probability keeps that action's
    advantage, and the first actions of its other chains get 0.

    Args:
        advantages: `[chains]`, the chains of a question next to each other.
        log_probs: `[chains, actions]`, when they were drawn.
        mask: `[chains, actions]`, non-zero for taken actions.
        draws: chains of each question.

    Returns:
        `[chains, actions]`.
    """
    likely = (log_probs * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    better = ((advantages > 0) & mask[:, 0].bool()).unflatten(0, (-1, draws))
    likely = likely.unflatten(0, (-1, draws)).masked_fill(~better, -torch.inf)
    best = torch.zeros_like(better).scatter(1, likely.argmax(dim=1, keepdim=True), True)
    keeps = best | ~better.any(dim=1, keepdim=True)
    spread = advantages.unsqueeze(1).expand_as(log_probs).clone()
    spread[:, 0] = spread[:, 0] * keeps.flatten()
    return spread


class Surrogate(NamedTuple):
    """What `clipped_surrogate` returns.

    Attributes:
        loss: `[batch, actions]`, to be minimised; 0 where masked.
        clipped: `[batch, actions]`, bool: taken actions that clip or clamp keeps from giving a gradient.
    """

    loss: Tensor
    clipped: Tensor


def clipped_surrogate(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    max_log_ratio: float = 3.0,
) -> Surrogate:
    """Computes −min(r·A, clip(r, 1 − ε, 1 + ε_high)·A) per action, r = exp(log_probs − old_log_probs).

    PPO's objective as GRPO uses it (arXiv:2402.03300, equation 3), with DAPO's separate upper bound
    (arXiv:2503.14476, section 3.1). The log-ratio is clamped to ±`max_log_ratio`, because that of a latent
    sums over thousands of dimensions and its exponential would overflow; at r = e^±3 nothing is left to learn
    from it.

    Args:
        log_probs: `[batch, actions]`, of the policy that is trained.
        old_log_probs: `[batch, actions]`, of the policy that sampled; taken as constant.
        advantages: `[batch]`, or `[batch, actions]`.
        mask: `[batch, actions]`, non-zero for taken actions.
        epsilon: how far r may fall below 1.
        epsilon_high: how far r may rise above 1; `epsilon` by default.
        max_log_ratio: bound of the absolute log-ratio, in nats.
    """
    taken = mask.bool()
    log_ratio = _masked(log_probs.float() - old_log_probs.detach().float(), taken)
    advantages = advantages.float() if advantages.dim() == 2 else advantages.float().unsqueeze(1)
    lowest, highest = 1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high)
    ratio = log_ratio.clamp(-max_log_ratio, max_log_ratio).exp()
    loss = -torch.minimum(ratio * advantages, ratio.clamp(lowest, highest) * advantages)
    too_low = (ratio < lowest) & (advantages < 0)
    too_high = (ratio > highest) & (advantages > 0)
    clipped = (too_low | too_high | (log_ratio.abs() > max_log_ratio)) & taken
    return Surrogate(_masked(loss, taken), clipped)


def token_kl(log_probs: Tensor, reference_log_probs: Tensor, old_log_probs: Tensor | None = None) -> Tensor:
    """Estimates KL(policy‖reference) from the sampled tokens: exp(q) − q − 1, q = log π_ref − log π.

    Never negative and unbiased ('k3'; GRPO, arXiv:2402.03300, equation 4). The reference is not taken as
    constant: its log-probabilities depend on latents.

    Args:
        log_probs: `[batch, tokens]`, of the policy that is trained.
        reference_log_probs: `[batch, tokens]`.
        old_log_probs: `[batch, tokens]`, of the policy that sampled, taken as constant. With these the
            estimate is multiplied by the ratio π/π_old, so that value and gradient are unbiased also after
            the policy has moved (DeepSeek-V3.2, arXiv:2512.02556; TRL's `use_bias_correction_kl`).

    Returns:
        `[batch, tokens]`.
    """
    difference = reference_log_probs.float() - log_probs.float()
    estimate = difference.exp() - difference - 1
    if old_log_probs is None:
        return estimate
    return estimate * (log_probs.float() - old_log_probs.detach().float()).exp()


def masked_trajectory_mean(loss: Tensor, mask: Tensor, **sizes: Any) -> Tensor:
    """Computes the mean over each trajectory's actions, then over trajectories.

    GRPO, equation 3 of arXiv:2402.03300: `[batch, actions]` to a scalar. A short trajectory weighs as much as
    a long one, and one without actions counts as 0.
    """
    taken = mask.bool()
    return (_masked(loss.float(), taken).sum(dim=1) / taken.sum(dim=1).clamp(min=1)).mean()


def masked_action_mean(loss: Tensor, mask: Tensor, **sizes: Any) -> Tensor:
    """Computes the mean over all actions of the batch: `[batch, actions]` to a scalar; TRL's 'bnpo'."""
    taken = mask.bool()
    return _masked(loss.float(), taken).sum() / taken.sum().clamp(min=1)


def masked_rollout_mean(
    loss: Tensor, mask: Tensor, *, num_items: Tensor | float | None = None, **sizes: Any
) -> Tensor:
    """Divides the sum over actions by `num_items`: each action of a rollout weighs the same.

    DAPO, section 3.3 of arXiv:2503.14476. The mean over a rollout's minibatches then is that over its
    actions, whatever the minibatches and devices that it is split into. TRL 1.16 divides alike: by the valid
    tokens of the rollout on all processes, in proportion to one accumulation window.

    Args:
        loss: `[batch, actions]`.
        mask: `[batch, actions]`, non-zero for valid actions.
        num_items: actions of this kind in a minibatch of the rollout, on average over its minibatches and the
            devices; absent: those of this batch, which then is the whole rollout.
        sizes: not read.

    Returns:
        a scalar.
    """
    taken = mask.bool()
    count = taken.sum() if num_items is None else torch.as_tensor(num_items, device=loss.device)
    total = _masked(loss.float(), taken).sum()
    return total / torch.where(count > 0, count, torch.ones_like(count))


def masked_constant_mean(
    loss: Tensor, mask: Tensor, *, max_length: int | None = None, **sizes: Any
) -> Tensor:
    """Divides the sum over actions by batch × `max_length`: `[batch, actions]` to a scalar.

    Without length bias (Dr. GRPO, arXiv:2503.20783).

    Raises:
        ValueError: `max_length`, the most actions that a trajectory can have, is not given.
    """
    if max_length is None:
        raise ValueError(
            "loss_type 'dr_grpo' divides by max_length, the most actions that a trajectory can have"
        )
    return _masked(loss.float(), mask.bool()).sum() / (loss.shape[0] * max_length)


LOSS_TYPES: dict[str, Callable[..., Tensor]] = {
    "grpo": masked_trajectory_mean,
    "bnpo": masked_action_mean,
    "dapo": masked_rollout_mean,
    "dr_grpo": masked_constant_mean,
}
"""TRL's `loss_type`; each is called as `f(loss, mask, max_length=..., num_items=...)`."""


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns `values` where the mask is set, else 0, also where padding holds an infinity or NaN."""
    return values if mask is None else values.masked_fill(~mask.bool(), 0.0)


def latent_kl(chain: LatentChain, reference: LatentChain, temperature: float) -> Tensor:
    """Computes the KL of each slot's Gaussian to the reference's in closed form, `[chains, slots]`.

    Both σ are scaled by `temperature`, as where the latents were sampled.
    """
    assert chain.log_variance is not None
    assert reference.log_variance is not None
    scale = 2 * math.log(temperature or 1.0)
    return gaussian_kl(
        chain.mean, chain.log_variance + scale, reference.mean, reference.log_variance + scale
    ).sum(dim=-1)


def stop_kl(logits: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Computes the KL of each stop decision to the reference's, `[chains, steps, 2]` to `[chains, steps]`."""
    log_probs, others = log_softmax(logits, temperature), log_softmax(reference, temperature)
    return (log_probs.exp() * (log_probs - others)).sum(dim=-1)


@torch.no_grad()
def between_question_std(mean: Tensor, mask: Tensor, draws: int) -> Tensor:
    """Computes the standard deviation of latents between questions, relative to their root mean square.

    Slot by slot, of the mean over a question's chains. Near 0 the latents have collapsed.

    Args:
        mean: `[chains, slots, hidden]`, the means of the latents.
        mask: `[chains, slots]`, 1 where a slot is in use.
        draws: chains of each question, which are neighbours.

    Returns:
        a scalar from 0 to 1; NaN where no slot is used by two questions.
    """
    used = mask.unflatten(0, (-1, draws)).float()
    chains = used.sum(dim=1)
    by_question = (mean.float().unflatten(0, (-1, draws)) * used.unsqueeze(-1)).sum(dim=1)
    by_question = by_question / chains.clamp(min=1).unsqueeze(-1)
    present = (chains > 0).float()
    present = (present * (present.sum(dim=0) > 1)).unsqueeze(-1)
    centre = (by_question * present).sum(dim=0) / present.sum(dim=0).clamp(min=1)
    between = ((by_question - centre).square() * present).sum()
    return (between / (by_question.square() * present).sum()).sqrt()
