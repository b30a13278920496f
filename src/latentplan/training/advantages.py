"""From rewards to advantages: what is subtracted, what divides, and whose actions an advantage reaches.

Pure functions of tensors, in float32. GRPO is arXiv:2402.03300, RLOO arXiv:2402.14740, Dr. GRPO
arXiv:2503.20783, DAPO arXiv:2503.14476, Latent-GRPO arXiv:2604.27998.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def group_deviation(rewards: Tensor, counted: Tensor, eps: float) -> Tensor:
    """Divide by each group's own deviation, as GRPO does: `[groups, G]` to `[groups, 1]`."""
    count = counted.sum(dim=1, keepdim=True)
    mean = (rewards * counted).sum(dim=1, keepdim=True) / count.clamp(min=1)
    squares = ((rewards - mean).square() * counted).sum(dim=1, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt() + eps


def batch_deviation(rewards: Tensor, counted: Tensor, eps: float) -> Tensor:
    """Divide by the deviation of all rewards of the batch, as arXiv:2508.08221 proposes: a scalar."""
    return group_deviation(rewards.reshape(1, -1), counted.reshape(1, -1), eps).squeeze()


def no_deviation(rewards: Tensor, counted: Tensor, eps: float) -> Tensor:
    """Do not divide, as Dr. GRPO proposes: it favours questions that are nearly always or never solved."""
    return torch.ones((), device=rewards.device)


SCALE_REWARDS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "group": group_deviation,
    "batch": batch_deviation,
    "none": no_deviation,
}
"""TRL's `scale_rewards`: what a centred reward is divided by; from `[groups, G]` rewards and which count."""


def group_mean(rewards: Tensor, counted: Tensor) -> Tensor:
    """The mean of the group, the trajectory itself included (GRPO): `[groups, G]` to `[groups, 1]`."""
    mean = (rewards * counted).sum(dim=1, keepdim=True) / counted.sum(dim=1, keepdim=True).clamp(min=1)
    return _within(mean, rewards, counted)


def mean_of_the_others(rewards: Tensor, counted: Tensor) -> Tensor:
    """The mean of the group without the trajectory (RLOO, arXiv:2402.14740): `[groups, G]` to the same.

    The only trajectory of a group that counts is compared with itself.
    """
    others = counted.sum(dim=1, keepdim=True) - counted
    mean = ((rewards * counted).sum(dim=1, keepdim=True) - rewards * counted) / others.clamp(min=1)
    return _within(mean, rewards, counted)


def _within(means: Tensor, rewards: Tensor, counted: Tensor) -> Tensor:
    """`means` between the lowest and the highest reward of their group that counts.

    So that equal rewards have exactly their own value as their mean: what rounding leaves of it would be
    divided by a deviation of about 0.
    """
    lowest = rewards.masked_fill(counted == 0, torch.inf).amin(dim=1, keepdim=True)
    highest = rewards.masked_fill(counted == 0, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(lowest <= highest, means.clamp(min=lowest, max=highest), means)


def no_baseline(rewards: Tensor, counted: Tensor) -> Tensor:
    """0: trajectories are reinforced as far as they are rewarded, and none is held off.

    With a reward of 0 or 1 and `scale_rewards: none` this is rejection sampling: right samples are imitated.
    """
    return rewards.new_zeros(())


BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "group": group_mean,
    "leave_one_out": mean_of_the_others,
    "none": no_baseline,
}
"""What is subtracted from a reward; from `[groups, G]` rewards and which of them count."""


def group_advantages(
    rewards: Tensor,
    num_generations: int | None = None,
    scale_rewards: Callable[[Tensor, Tensor, float], Tensor] = group_deviation,
    eps: float = 1e-4,
    baseline: Callable[[Tensor, Tensor], Tensor] = group_mean,
    counted: Tensor | None = None,
) -> Tensor:
    """A = (R − mean_G)/(std_G + ε): how much better a trajectory is than the others of its question.

    GRPO, section 4.1.2 of arXiv:2402.03300; the deviation has G − 1 in the denominator, as in TRL. A group
    whose rewards are all equal gets 0.

    Args:
        rewards: `[groups, G]`, or `[groups·G]` with the trajectories of a question next to each other; NaN
            for trajectories without a reward, which do not count, as in TRL 1.16.
        num_generations: G; needed for rewards of one dimension.
        scale_rewards: one of the values of `SCALE_REWARDS`.
        eps: keeps the quotient finite.
        baseline: one of the values of `BASELINES`.
        counted: in the shape of `rewards`, 0 for trajectories that enter no mean and get no advantage
            (Latent-GRPO's masking of invalid samples, arXiv:2604.27998); all with a reward by default.

    Returns:
        Advantages in the shape of `rewards`, float32; 0 for trajectories that do not count.

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
    if counted is not None:
        weights = weights * counted.float().reshape(-1, size)
    grouped = grouped.masked_fill(weights == 0, 0.0)  # a NaN would outlive its weight of 0
    advantages = (grouped - baseline(grouped, weights)) / scale_rewards(grouped, weights, eps)
    return (advantages * weights).reshape(rewards.shape)


def only_groups_with_contrast(advantages: Tensor, num_generations: int) -> Tensor:
    """Advantages `[groups·G]`, larger by groups / groups in which any differs from 0.

    The mean over all groups then is that over groups that teach something: DAPO's filter (arXiv:2503.14476,
    section 3.2) without drawing others in their place.
    """
    contrast = (advantages.reshape(-1, num_generations) != 0).any(dim=1).float().mean()
    return advantages / torch.where(contrast > 0, contrast, torch.ones_like(contrast))


def first_action_of_the_best(advantages: Tensor, log_probs: Tensor, mask: Tensor, draws: int) -> Tensor:
    """Advantages of each action, the first one's kept for the likeliest of a question's better chains alone.

    Latent-GRPO's first-token selection (arXiv:2604.27998): if several good chains pull at one place, it
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
