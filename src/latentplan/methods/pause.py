"""Pause tokens (arXiv:2310.02226): a fixed number of copies of one learned embedding before the answer.

They add computation, and carry no information from one slot to the next. This makes them the baseline of
latent reasoning: where Coconut is better, the content of its latents makes the difference.
"""

from __future__ import annotations

import torch

from latentplan.encoding.processor import Batch
from latentplan.methods.base import Method
from latentplan.methods.losses import ForwardPass
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import LatentChain, read_text


class Pause(Method):
    """c·K pause tokens for every problem, supervised by the answer alone."""

    name = "pause"
    latent_head = "pause"

    def stages(self, max_latent_steps: int) -> list[int]:
        """Returns stage K alone: all pause tokens from the start, and no explicit chain of thought."""
        return [max_latent_steps]

    def forward(self, reasoner: LatentReasoner, batch: Batch) -> ForwardPass:
        """Reads question, pause tokens and text in one pass; no pause token depends on what precedes it."""
        rows, slots = batch["slot_mask"].shape
        assert reasoner.latent_head is not None
        anything = torch.zeros(rows, slots, reasoner.config.hidden_size, device=batch["slot_mask"].device)
        pauses = reasoner.latent_head(anything).mean
        state = reasoner.start(batch["question_ids"], batch["question_mask"])
        if slots:
            state.append(pauses, batch["slot_mask"])
        hidden = read_text(state, reasoner.embed(batch["text_ids"]), batch["text_mask"])
        return ForwardPass(LatentChain(pauses, pauses, None, batch["slot_mask"]), hidden)
