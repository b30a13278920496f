"""The mathematics of the RL stage: clipped surrogates and means over actions.

Pure functions of tensors, computed in float32 whatever comes in. An action is a latent slot, a stop decision
or an answer token; `mask` is 1 for actions that were taken and 0 for padding. GRPO is arXiv:2402.03300, Dr.
GRPO arXiv:2503.20783, DAPO arXiv:2503.14476, ATP-Latent arXiv:2601.21598, CoLaR arXiv:2505.16552; option
names are TRL's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


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
    """−min(r·A, clip(r, 1 − ε, 1 + ε_high)·A) per action, with r = exp(log_probs − old_log_probs).

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
    """An estimate of KL(policy‖reference) from the sampled tokens: exp(q) − q − 1, q = log π_ref − log π.

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
    """The mean over each trajectory's actions, then over trajectories (GRPO): `[batch, actions]` to a scalar.

    A short trajectory weighs as much as a long one. One without actions counts as 0.
    """
    taken = mask.bool()
    return (_masked(loss.float(), taken).sum(dim=1) / taken.sum(dim=1).clamp(min=1)).mean()


def masked_action_mean(loss: Tensor, mask: Tensor, **sizes: Any) -> Tensor:
    """The mean over all actions of the batch ('bnpo'): `[batch, actions]` to a scalar."""
    taken = mask.bool()
    return _masked(loss.float(), taken).sum() / taken.sum().clamp(min=1)


def masked_rollout_mean(
    loss: Tensor, mask: Tensor, *, num_items: Tensor | float | None = None, **sizes: Any
) -> Tensor:
    """The sum over actions divided by `num_items`, so that each action of a rollout weighs the same (DAPO).

    arXiv:2503.14476, section 3.3. The mean over a rollout's minibatches then is that over its actions,
    whatever the minibatches and devices that it is split into. TRL 1.16 divides alike: by the valid tokens of
    the rollout on all processes, in proportion to one accumulation window.

    Args:
        loss: `[batch, actions]`.
        mask: `[batch, actions]`, non-zero for actions that count.
        num_items: actions of this kind in a minibatch of the rollout, on average over its minibatches and the
            devices; absent: those of this batch, which then is the whole rollout.
        sizes: not read.
    """
    taken = mask.bool()
    count = taken.sum() if num_items is None else torch.as_tensor(num_items, device=loss.device)
    total = _masked(loss.float(), taken).sum()
    return total / torch.where(count > 0, count, torch.ones_like(count))


def masked_constant_mean(
    loss: Tensor, mask: Tensor, *, max_length: int | None = None, **sizes: Any
) -> Tensor:
    """The sum over actions divided by batch × `max_length`, without length bias (Dr. GRPO): a scalar.

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
    """`values` where the mask is set, else 0, also where padding holds an infinity or NaN."""
    return values if mask is None else values.masked_fill(~mask.bool(), 0.0)
