"""Diagonal Gaussians over latent tokens: densities and divergences, in float32 whatever comes in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_TWO_PI = math.log(2 * math.pi)


def gaussian_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor, mask: Tensor | None = None) -> Tensor:
    """log N(z; μ, diag σ²), the sum over dimensions, as in ATP-Latent: `[..., hidden]` to `[...]`, in nats.

    `mask`, of the result's shape, sets unused slots to 0. For a score function `z` has to be detached.
    """
    return _masked(_gaussian_log_density(z, mean, log_variance).sum(dim=-1), mask)


def gaussian_kl(mean_p: Tensor, log_variance_p: Tensor, mean_q: Tensor, log_variance_q: Tensor) -> Tensor:
    """KL(p‖q) of diagonal Gaussians, per dimension: ½(log σ_q² − log σ_p² + (σ_p² + (μ_p − μ_q)²)/σ_q² − 1).

    `[..., hidden]` to the same shape, in nats. The KL to the reference policy is exact for latents, no
    estimate.
    """
    mean_p, log_variance_p = mean_p.float(), log_variance_p.float()
    mean_q, log_variance_q = mean_q.float(), log_variance_q.float()
    difference = log_variance_p - log_variance_q
    distance = (mean_p - mean_q).square() * torch.exp(-log_variance_q)
    return 0.5 * (difference.exp() + distance - 1 - difference)


def standard_normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²)‖N(0, 1)) = ½(μ² + σ² − 1 − log σ²) per dimension: the VAE term of ATP-Latent.

    `[..., hidden]` to the same shape, in nats.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def _gaussian_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    log_variance = log_variance.float()
    squared = (z.float() - mean.float()).square() * torch.exp(-log_variance)
    return -0.5 * (squared + log_variance + _LOG_TWO_PI)


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values.masked_fill(~mask.bool(), 0.0)
