"""`Context`: what a batch has read so far, with its KV cache, and what waits to be read.

Inputs are pushed first and read together later, so the last latent and the text after it (or a question
without latents and its text) go through the backbone in one pass. Masked columns are invisible to everything
after them and do not count as positions, so a row's result never depends on its neighbours.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from latentplan.modeling.backbones import body, takes_positions
from latentplan.modeling.growing_cache import GrowingLayer
from latentplan.modeling.recompute import RecomputableCache, recomputes
from latentplan.modeling.windows import Windows


class Context:
    """A growing batch of sequences.

    Args:
        backbone: the causal language model that reads.
        embeds: `[batch, n, hidden]` inputs that wait to be read.
        mask: `[batch, n]`, 1 where a column counts.
    """

    can_shrink = True

    def __init__(self, backbone: PreTrainedModel, embeds: torch.Tensor, mask: torch.Tensor):
        self.backbone = backbone
        self.windows = Windows(backbone.config)
        self.cache: Cache = RecomputableCache() if recomputes(backbone) else self.windows.new_cache()
        self.mask = mask[:, :0]
        self.length = mask.new_zeros(mask.shape[0], 1)
        self.pending, self.pending_mask = embeds, mask
        self._dtype, self._takes_positions = backbone.dtype, takes_positions(body(backbone))

    def push(self, embeds: torch.Tensor, mask: torch.Tensor) -> None:
        """Appends inputs `[batch, n, hidden]` with their mask `[batch, n]` to what waits."""
        if self.pending.shape[1] == 0:
            self.pending, self.pending_mask = embeds, mask
        else:
            self.pending = torch.cat([self.pending, embeds], dim=1)
            self.pending_mask = torch.cat([self.pending_mask, mask], dim=1)

    def read(self) -> torch.Tensor:
        """Reads all that waits in one pass and returns its last hidden states, `[batch, n, hidden]`."""
        embeds, _, positions = self.take_pending()
        # Without them a model derives the same positions from the mask (BLOOM).
        given = {"position_ids": positions} if self._takes_positions else {}
        hidden = body(self.backbone)(
            inputs_embeds=embeds.to(self._dtype),
            attention_mask=self.windows.attention_mask(self.mask, embeds.shape[1], self._dtype),
            past_key_values=self.cache,
            use_cache=True,
            **given,
        ).last_hidden_state
        if isinstance(self.cache, RecomputableCache):
            self.cache = self.cache.next_pass()
        return hidden

    def take_pending(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What waits and counts as read from now on: inputs, mask, and positions from 0 on, `[batch, n]`."""
        embeds, mask = self.pending, self.pending_mask
        counted = self.length + (mask.cumsum(dim=1) if mask.shape[1] > 1 else mask)
        self.mask = torch.cat([self.mask, mask], dim=1)
        self.length = counted[:, -1:]
        self.pending, self.pending_mask = embeds[:, :0], mask[:, :0]
        return embeds, mask, (counted - 1).clamp(min=0)

    def repeat(self, times: int) -> Context:
        """The same context with every row `times` over, row by row, for the samples of a group.

        The new context shares nothing that changes with the old one; once over, it is the old one.
        """
        if times == 1:
            return self
        other = copy.copy(self)
        other.cache = _repeated(self.cache, times)
        other.mask = self.mask.repeat_interleave(times, dim=0)
        other.length = self.length.repeat_interleave(times, dim=0)
        other.pending = self.pending.repeat_interleave(times, dim=0)
        other.pending_mask = self.pending_mask.repeat_interleave(times, dim=0)
        return other

    def selected(self, rows: torch.Tensor) -> Context:
        """A context of some of the rows, as `repeat`; for rollouts, which keep no gradients."""
        other = copy.copy(self)
        other.cache = copy.copy(self.cache)
        other.cache.layers = [_rows_of(layer, rows) for layer in self.cache.layers]
        other.mask, other.length = self.mask[rows], self.length[rows]
        other.pending, other.pending_mask = self.pending[rows], self.pending_mask[rows]
        return other

    def put_back(self, rows: torch.Tensor, other: Context) -> None:
        """Takes over what `other`, once `selected` from these rows, has read since and waits to read.

        All other rows have masked columns there.
        """
        for layer, newer in zip(self.cache.layers, other.cache.layers, strict=True):
            _put_back(layer, rows, newer)
        self.mask = _spread(other.mask, rows, self.mask)
        self.length[rows] = other.length
        self.pending = _spread(other.pending, rows, self.pending[:, :0])
        self.pending_mask = _spread(other.pending_mask, rows, self.pending_mask[:, :0])


def _spread(part: torch.Tensor, rows: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """`old` `[batch, n, ...]` with the columns of `part` after the n-th in `rows`, and zeros elsewhere."""
    new = part[:, old.shape[1] :]
    wide = new.new_zeros(old.shape[0], *new.shape[1:])
    wide[rows] = new
    return torch.cat([old, wide], dim=1)


def _rows_of(layer: Any, rows: torch.Tensor) -> Any:
    if isinstance(layer, GrowingLayer):
        return layer.selected(rows)
    other = copy.copy(layer)
    other.batch_select_indices(rows)
    return other


def _put_back(layer: Any, rows: torch.Tensor, newer: Any) -> None:
    if isinstance(layer, GrowingLayer):
        layer.put_back(rows, newer)
    else:
        layer.keys, layer.values = (
            _spread(new.transpose(1, 2), rows, old.transpose(1, 2)).transpose(1, 2)
            for new, old in ((newer.keys, layer.keys), (newer.values, layer.values))
        )


def _repeated(cache: Cache, times: int) -> Cache:
    if isinstance(cache, RecomputableCache):
        return cache.repeated(times)
    other = copy.copy(cache)
    other.layers = [_repeated_layer(layer, times) for layer in cache.layers]
    return other


def _repeated_layer(layer: Any, times: int) -> Any:
    if isinstance(layer, GrowingLayer):
        return layer.repeated(times)
    other = copy.copy(layer)
    other.batch_repeat_interleave(times)
    return other
