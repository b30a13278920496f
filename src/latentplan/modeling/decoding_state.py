"""`DecodingState`: what a batch has read so far, its KV cache, and the inputs that are pending.

Inputs are appended first and read together later, so the last latent and the text after it (or a question
without latents and its text) go through the backbone in one pass. Masked columns are invisible to everything
after them and have no position, so a row never depends on the rows beside it.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from latentplan.modeling.backbones import body, takes_positions
from latentplan.modeling.efficiency.gradient_checkpointing import RecomputableCache, recomputes
from latentplan.modeling.efficiency.kv_cache import GrowingLayer, Windows


class Lookahead(Protocol):
    """What a thinking process may ask of the sequence so far; it cannot change it."""

    @property
    def rows(self) -> int:
        """Rows of the batch."""

    def hidden_before(self, drafts: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the last hidden states before each of the n + 1 next positions, `[rows, 1 + n, hidden]`.

        `drafts` `[rows, n, hidden]` stand at the first n of these positions, and are forgotten afterwards.
        """


class DecodingState:
    """A growing batch of sequences.

    Args:
        backbone: the causal language model that reads.
        embeds: `[batch, n, hidden]` inputs that are pending.
        mask: `[batch, n]`, 1 where a column is visible.

    Attributes:
        last_hidden: `[batch, hidden]`, the last hidden state at the last column that was read, or None.
    """

    can_shrink = True
    last_hidden: torch.Tensor | None = None

    def __init__(self, backbone: PreTrainedModel, embeds: torch.Tensor, mask: torch.Tensor):
        self.backbone = backbone
        self.windows = Windows(backbone.config)
        self.cache: Cache = RecomputableCache() if recomputes(backbone) else self.windows.new_cache()
        self.mask = mask[:, :0]
        self.length = mask.new_zeros(mask.shape[0], 1)
        self.pending, self.pending_mask = embeds, mask
        self._dtype, self._takes_positions = backbone.dtype, takes_positions(body(backbone))

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return self.mask.shape[0]

    def append(self, embeds: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """Appends inputs `[batch, n, hidden]` with their mask `[batch, n]` to what is pending.

        All columns are visible where there is no mask.
        """
        if mask is None:
            mask = embeds.new_ones(embeds.shape[:2], dtype=torch.long)
        # A node of its own: the gradients of a pass are summed before they meet those of other uses.
        embeds = embeds.view_as(embeds)
        if self.pending.shape[1] == 0:
            self.pending, self.pending_mask = embeds, mask
        else:
            self.pending = torch.cat([self.pending, embeds], dim=1)
            self.pending_mask = torch.cat([self.pending_mask, mask], dim=1)

    def read(self) -> torch.Tensor:
        """Reads all pending inputs in one pass and returns their last hidden states, `[batch, n, hidden]`."""
        hidden = self._pass()
        self.last_hidden = hidden[:, -1]
        return hidden

    def hidden_before(
        self, inputs: torch.Tensor | None = None, mask: torch.Tensor | None = None, keep: bool = False
    ) -> torch.Tensor:
        """Reads pending and given inputs in one pass; see `Lookahead`.

        Args:
            inputs: `[batch, n, hidden]`.
            mask: `[batch, n]`; all are visible where it is None.
            keep: whether the inputs stay read, instead of being forgotten.

        Returns:
            the last hidden states before each input and behind the last, `[batch, 1 + n, hidden]`.
        """
        pending, count = self.pending.shape[1], 0 if inputs is None else inputs.shape[1]
        first = None if pending else self.last_hidden
        if inputs is not None and count:
            self.append(inputs, mask)
        hidden = self.read() if pending or count else None
        if first is not None:
            first = first.unsqueeze(1)
            hidden = first if hidden is None else torch.cat([first, hidden], dim=1)
        assert hidden is not None, "nothing has been read, and nothing is pending"
        if count and not keep:
            self.truncate(count)
            self.last_hidden = hidden[:, -1 - count]
        return hidden[:, -1 - count :]

    def truncate(self, columns: int) -> None:
        """Forgets the last columns that were read; nothing may be pending."""
        self.length = self.length - self.mask[:, -columns:].sum(dim=1, keepdim=True)
        self.mask = self.mask[:, :-columns]
        if isinstance(self.cache, RecomputableCache):
            self.cache = self.cache.truncated(columns)
            return
        for layer in self.cache.layers:
            _truncate(layer, columns)

    def _pass(self) -> torch.Tensor:
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
        """Takes what is pending, as read from now on: inputs, mask, and positions from 0 on, `[batch, n]`."""
        embeds, mask = self.pending, self.pending_mask
        counted = self.length + (mask.cumsum(dim=1) if mask.shape[1] > 1 else mask)
        self.mask = torch.cat([self.mask, mask], dim=1)
        self.length = counted[:, -1:]
        self.pending, self.pending_mask = embeds[:, :0], mask[:, :0]
        return embeds, mask, (counted - 1).clamp(min=0)

    def repeat(self, times: int) -> DecodingState:
        """Returns a state with every row `times` over, row by row, for the samples of a group.

        It shares nothing that changes with this one; where `times` is 1, it is this one.
        """
        if times == 1:
            return self
        other = copy.copy(self)
        other.cache = _repeated(self.cache, times)
        other.mask = self.mask.repeat_interleave(times, dim=0)
        other.length = self.length.repeat_interleave(times, dim=0)
        other.pending = self.pending.repeat_interleave(times, dim=0)
        other.pending_mask = self.pending_mask.repeat_interleave(times, dim=0)
        if self.last_hidden is not None:
            other.last_hidden = self.last_hidden.repeat_interleave(times, dim=0)
        return other

    def selected(self, rows: torch.Tensor) -> DecodingState:
        """Returns a copy of some rows; for rollouts, which keep no gradients."""
        other = copy.copy(self)
        other.cache = copy.copy(self.cache)
        other.cache.layers = [_rows_of(layer, rows) for layer in self.cache.layers]
        other.mask, other.length = self.mask[rows], self.length[rows]
        other.pending, other.pending_mask = self.pending[rows], self.pending_mask[rows]
        other.last_hidden = None if self.last_hidden is None else self.last_hidden[rows]
        return other

    def put_back(self, rows: torch.Tensor, other: DecodingState) -> None:
        """Takes over what `other`, once `selected` from these rows, has read since and has pending.

        All other rows have masked columns there.
        """
        for layer, newer in zip(self.cache.layers, other.cache.layers, strict=True):
            _put_back(layer, rows, newer)
        self.mask = _spread(other.mask, rows, self.mask)
        self.length[rows] = other.length
        self.pending = _spread(other.pending, rows, self.pending[:, :0])
        self.pending_mask = _spread(other.pending_mask, rows, self.pending_mask[:, :0])
        if self.last_hidden is not None and other.last_hidden is not None:
            self.last_hidden = self.last_hidden.index_put((rows,), other.last_hidden)

    def view(self, rows: torch.Tensor) -> RowsView:
        """Looks ahead from some rows only; nothing may be pending."""
        return RowsView(self, rows)

    def pack(self) -> None:
        """Moves each row's visible columns together at the end, and drops columns that no row needs.

        Positions are counted from the mask, so a key may lie in any column; for rollouts only.
        """
        order = self.mask.argsort(dim=1, stable=True)
        self.mask = self.mask.gather(1, order)
        spare = self.mask.shape[1] - int(self.mask.sum(dim=1).max())
        self.mask, order = self.mask[:, spare:], order[:, spare:]
        for layer in self.cache.layers:
            layer.reorder(order)  # type: ignore[union-attr]


class RowsView:
    """A `Lookahead` from some rows: free where nothing is drafted, else their keys and values are copied.

    Args:
        state: the whole batch, which has read everything.
        index: `[rows]`, which of its rows.
    """

    def __init__(self, state: DecodingState, index: torch.Tensor):
        self.state, self.index = state, index
        self._copy: DecodingState | None = None

    @property
    def rows(self) -> int:
        """Rows of the view."""
        return len(self.index)

    def hidden_before(self, drafts: torch.Tensor | None = None) -> torch.Tensor:
        """As of `Lookahead`."""
        if drafts is None or not drafts.shape[1]:
            assert self.state.last_hidden is not None
            return self.state.last_hidden[self.index].unsqueeze(1)
        self._copy = self._copy or self.state.selected(self.index)
        return self._copy.hidden_before(drafts)


def _truncate(layer: Any, columns: int) -> None:
    if isinstance(layer, GrowingLayer):
        layer.truncate(columns)
    else:
        layer.keys, layer.values = layer.keys[..., :-columns, :], layer.values[..., :-columns, :]


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
