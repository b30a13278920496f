"""Pause tokens (arXiv:2310.02226): a fixed number of learned embeddings before the answer, all of them alike.

They add computation and carry nothing from one slot to the next, which is what latent reasoning is compared
with: whatever Coconut does better, it does through what its latents say.
"""

from __future__ import annotations

import torch

from latentplan.encoding.processor import Batch
from latentplan.methods.base import Method
from latentplan.methods.losses import ForwardPass
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import LatentChain, read_text


class Pause(Method):
    """c·K pauses for every problem, supervised by the answer alone."""

    name = "pause"
    latent_head = "pause"

    def stages(self, max_latent_steps: int) -> list[int]:
        """No curriculum: all pauses and no written step from the start."""
        return [max_latent_steps]

    def forward(self, reasoner: LatentReasoner, batch: Batch) -> ForwardPass:
        """Question, pauses and text in one pass, since no pause depends on what was read before it."""
        rows, slots = batch["slot_mask"].shape
        assert reasoner.latent_head is not None
        anything = torch.zeros(rows, slots, reasoner.config.hidden_size, device=batch["slot_mask"].device)
        pauses = reasoner.latent_head(anything).mean
        state = reasoner.start(batch["question_ids"], batch["question_mask"])
        if slots:
            state.append(pauses, batch["slot_mask"])
        hidden = read_text(state, reasoner.embed(batch["text_ids"]), batch["text_mask"])
        return ForwardPass(LatentChain(pauses, pauses, None, batch["slot_mask"]), hidden)
