"""The sequential latent pass with known slots: used in training, where gradients flow through every slot."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentplan.modeling import noise as noise_source
from latentplan.modeling.context import Context
from latentplan.modeling.heads import LatentDistribution
from latentplan.modeling.reasoner import LatentReasoner


@dataclass
class LatentChain:
    """The latents of a batch, and the distributions that they were drawn from.

    Attributes:
        latents: `[batch, slots, hidden]`.
        mean: `[batch, slots, hidden]`.
        log_variance: `[batch, slots, hidden]`, or None where latents are points.
        mask: `[batch, slots]`, 1 where a slot is in use.
    """

    latents: torch.Tensor
    mean: torch.Tensor
    log_variance: torch.Tensor | None
    mask: torch.Tensor


def unroll(
    model: LatentReasoner,
    context: Context,
    slot_mask: torch.Tensor,
    noise_keys: torch.Tensor | None,
    latent_temperature: float = 1.0,
) -> LatentChain:
    """Computes the slots one after another; the last latent is left waiting in the context.

    Slots that are not in use are computed too, for the stop head to learn from, but nothing ever sees them.

    Args:
        model: the reasoner.
        context: the question, waiting to be read.
        slot_mask: `[batch, slots]`.
        noise_keys: `[batch]` keys of the counter-based noise; None uses the means.
        latent_temperature: scale of σ.
    """
    num_slots = slot_mask.shape[1]
    noise = None
    if noise_keys is not None and num_slots:
        noise = noise_source.slots(noise_keys, num_slots, model.config.hidden_size)
    return unroll_from(model, context, None, slot_mask, noise, latent_temperature)


def unroll_from(
    model: LatentReasoner,
    context: Context,
    hidden: torch.Tensor | None,
    slot_mask: torch.Tensor,
    noise: torch.Tensor | None,
    latent_temperature: float = 1.0,
) -> LatentChain:
    """As `unroll`, with ready noise and, where the question has been read already, its last hidden state.

    Args:
        hidden: `[batch, hidden]`, what the first slot follows from; None reads what waits in the context.
        noise: `[batch, slots, hidden]`, standard normal; None uses the means.
    """
    latents, distributions = [], []
    for slot in range(slot_mask.shape[1]):
        if slot == 0 and hidden is not None:
            distribution: LatentDistribution = model.latent_head(hidden)  # type: ignore[misc]
        else:
            distribution = model.next_latent(context)
        latent = distribution.sample(None if noise is None else noise[:, slot], latent_temperature)
        context.push(latent.unsqueeze(1), slot_mask[:, slot : slot + 1])
        latents.append(latent)
        distributions.append(distribution)
    return _stack(latents, distributions, slot_mask, model.config.hidden_size)


def _stack(latents: list, distributions: list, slot_mask: torch.Tensor, hidden_size: int) -> LatentChain:
    """Lists of `[batch, hidden]` latents and their distributions, slot by slot, to a chain."""
    if not latents:
        empty = torch.zeros(slot_mask.shape[0], 0, hidden_size, device=slot_mask.device)
        return LatentChain(empty, empty, None, slot_mask)
    log_variance = None
    if distributions[0].log_variance is not None:
        log_variance = torch.stack([part.log_variance for part in distributions], dim=1)
    return LatentChain(
        latents=torch.stack(latents, dim=1),
        mean=torch.stack([part.mean for part in distributions], dim=1),
        log_variance=log_variance,
        mask=slot_mask,
    )


def read_text(context: Context, embeds: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
    """Reads text `[batch, text, hidden]` after what waits; hidden states *before* each token, same shape.

    The last text token is not read: nothing is predicted from it.
    """
    waiting = context.pending.shape[1]
    context.push(embeds[:, :-1], text_mask[:, :-1])
    return context.read()[:, waiting - 1 :]
