"""KL divergences between two policies in closed form: of Gaussian latents, and of decisions to stop."""

from __future__ import annotations

import math

import torch

from latentplan.modeling.latent_heads import gaussian_kl
from latentplan.modeling.sampling import log_softmax
from latentplan.modeling.thinking import LatentChain


def latent_divergence(chain: LatentChain, reference: LatentChain, temperature: float) -> torch.Tensor:
    """KL of each slot's Gaussian to the reference's, both σ scaled by `temperature`, `[chains, slots]`."""
    assert chain.log_variance is not None
    assert reference.log_variance is not None
    scale = 2 * math.log(temperature or 1.0)
    return gaussian_kl(
        chain.mean, chain.log_variance + scale, reference.mean, reference.log_variance + scale
    ).sum(dim=-1)


def stop_divergence(logits: torch.Tensor, reference: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL of each decision of the stop head to the reference's, `[chains, steps, 2]` to `[chains, steps]`."""
    log_probs, others = log_softmax(logits, temperature), log_softmax(reference, temperature)
    return (log_probs.exp() * (log_probs - others)).sum(dim=-1)
