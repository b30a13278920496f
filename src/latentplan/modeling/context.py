"""`Context`: what a batch has read so far, with its KV cache, and what waits to be read.

Inputs are pushed first and read together later, so the last latent and the text after it (or a question
without latents and its text) go through the backbone in one pass. Masked columns are invisible to everything
after them and do not count as positions, so a row's result never depends on its neighbours.
"""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from latentplan.modeling.backbones import body, takes_positions
from latentplan.modeling.recompute import RecomputableCache, recomputes
from latentplan.modeling.windows import Windows


class Context:
    """A growing batch of sequences.

    Args:
        backbone: the causal language model that reads.
        embeds: `[batch, n, hidden]` inputs that wait to be read.
        mask: `[batch, n]`, 1 where a column counts.
    """

    def __init__(self, backbone: PreTrainedModel, embeds: torch.Tensor, mask: torch.Tensor):
        self.backbone = backbone
        self.windows = Windows(backbone.config)
        self.cache: Cache = RecomputableCache() if recomputes(backbone) else self.windows.new_cache()
        self.mask = mask[:, :0]
        self.length = mask.new_zeros(mask.shape[0], 1)
        self.pending, self.pending_mask = embeds, mask

    def push(self, embeds: torch.Tensor, mask: torch.Tensor) -> None:
        """Appends inputs `[batch, n, hidden]` with their mask `[batch, n]` to what waits."""
        if self.pending.shape[1] == 0:
            self.pending, self.pending_mask = embeds, mask
        else:
            self.pending = torch.cat([self.pending, embeds], dim=1)
            self.pending_mask = torch.cat([self.pending_mask, mask], dim=1)

    def read(self) -> torch.Tensor:
        """Reads all that waits in one pass and returns its last hidden states, `[batch, n, hidden]`."""
        embeds, mask = self.pending, self.pending_mask
        positions = self.length + mask.cumsum(dim=1)
        self.mask = torch.cat([self.mask, mask], dim=1)
        self.length = positions[:, -1:]
        self.pending, self.pending_mask = embeds[:, :0], mask[:, :0]
        model, dtype = body(self.backbone), self.backbone.dtype
        # Without them a model derives the same positions from the mask (BLOOM).
        given = {"position_ids": (positions - 1).clamp(min=0)} if takes_positions(model) else {}
        hidden = model(
            inputs_embeds=embeds.to(dtype),
            attention_mask=self.windows.attention_mask(self.mask, embeds.shape[1], dtype),
            past_key_values=self.cache,
            use_cache=True,
            **given,
        ).last_hidden_state
        if isinstance(self.cache, RecomputableCache):
            self.cache = self.cache.next_pass()
        return hidden

    def repeat(self, times: int) -> Context:
        """The same context with every row `times` over, row by row, for the samples of a group.

        The new context shares nothing that changes with the old one.
        """
        other = Context.__new__(Context)
        other.backbone, other.windows = self.backbone, self.windows
        other.cache = _repeated(self.cache, times)
        other.mask = self.mask.repeat_interleave(times, dim=0)
        other.length = self.length.repeat_interleave(times, dim=0)
        other.pending = self.pending.repeat_interleave(times, dim=0)
        other.pending_mask = self.pending_mask.repeat_interleave(times, dim=0)
        return other


def _repeated(cache: Cache, times: int) -> Cache:
    if isinstance(cache, RecomputableCache):
        return cache.repeated(times)
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    other.batch_repeat_interleave(times)
    return other
