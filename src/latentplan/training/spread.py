"""How much latents depend on the question: near 0, they have collapsed."""

from __future__ import annotations

import torch


@torch.no_grad()
def latent_spread(mean: torch.Tensor, mask: torch.Tensor, draws: int) -> torch.Tensor:
    """The deviation of latents between questions, relative to their root mean square; a scalar from 0 to 1.

    Slot by slot, of the mean over a question's chains; NaN where no slot is used by two questions.

    Args:
        mean: `[chains, slots, hidden]`, the means of the latents.
        mask: `[chains, slots]`, 1 where a slot is in use.
        draws: chains of each question, which are neighbours.
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
