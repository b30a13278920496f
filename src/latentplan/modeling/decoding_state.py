"""`DecodingState`: the KV cache of a batch, its mask, and the inputs that are pending.

Inputs are appended first and read together later, so that the last latent and the text after it (or a
question without latents and its text) take one pass. Masked columns are invisible to all later ones and
have no position, so a row never depends on the rows beside it.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from latentplan.modeling.backbones import body, takes_positions
from latentplan.modeling.efficiency.gradient_checkpointing import CheckpointedCache, is_checkpointed
from latentplan.modeling.efficiency.kv_cache import GrowingLayer, Windows


class Lookahead(Protocol):
    """The read-only view that a thinking process has of the sequence so far."""

    @property
    def rows(self) -> int:
        """The number of rows of the batch."""

    def hidden_before(self, drafts: torch.Tensor | None = None) -> torch.Tensor:
        """Computes the last hidden states before each of the n + 1 next positions, `[rows, 1 + n, hidden]`.

        Args:
            drafts: `[rows, n, hidden]`, inputs at the first n of these positions, which are forgotten
                afterwards; None for n = 0.
        """


class DecodingState:
    """A growing batch of sequences.

    Args:
        backbone: the causal language model.
        embeds: `[batch, n, hidden]` inputs that are pending.
        mask: `[batch, n]`, 1 where a column is visible.

    Attributes:
        can_compact: whether finished rows can be dropped from the batch.
        last_hidden: `[batch, hidden]`, the last hidden state at the last column that was read, or None.
    """

    can_compact = True
    last_hidden: torch.Tensor | None = None

    def __init__(self, backbone: PreTrainedModel, embeds: torch.Tensor, mask: torch.Tensor):
        self.backbone = backbone
        self.windows = Windows(backbone.config)
        self.cache: Cache = CheckpointedCache() if is_checkpointed(backbone) else self.windows.new_cache()
        self.mask = mask[:, :0]
        self.length = mask.new_zeros(mask.shape[0], 1)
        self.pending, self.pending_mask = embeds, mask
        self._dtype, self._takes_positions = backbone.dtype, takes_positions(body(backbone))

    @property
    def rows(self) -> int:
        """The number of rows of the batch."""
        return self.mask.shape[0]

    def append(self, embeds: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """Appends inputs `[batch, n, hidden]` with their mask `[batch, n]` to the pending ones.

        All columns are visible where `mask` is None.
        """
        if mask is None:
            mask = embeds.new_ones(embeds.shape[:2], dtype=torch.long)
        # A node of its own: the gradients of a pass are summed before those of other uses are added.
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
            inputs: `[batch, n, hidden]`; None for n = 0.
            mask: `[batch, n]`; all columns are visible where it is None.
            keep: whether the inputs stay in the sequence; else they are forgotten afterwards.

        Returns:
            The last hidden states before each input and after the last one, `[batch, 1 + n, hidden]`.
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

    def positions_used(self) -> torch.Tensor:
        """Returns how many positions each row takes, pending inputs included, `[batch]`."""
        return self.length[:, 0] + self.pending_mask.sum(dim=1)

    def truncate(self, columns: int) -> None:
        """Drops the last columns that were read; nothing may be pending."""
        self.length = self.length - self.mask[:, -columns:].sum(dim=1, keepdim=True)
        self.mask = self.mask[:, :-columns]
        if isinstance(self.cache, CheckpointedCache):
            self.cache = self.cache.truncated(columns)
            return
        for layer in self.cache.layers:
            _truncate(layer, columns)

    def _pass(self) -> torch.Tensor:
        embeds, _, positions = self.take_pending()
        # A model that takes no positions derives the same ones from the mask (BLOOM).
        given = {"position_ids": positions} if self._takes_positions else {}
        hidden = body(self.backbone)(
            inputs_embeds=embeds.to(self._dtype),
            attention_mask=self.windows.attention_mask(self.mask, embeds.shape[1], self._dtype),
            past_key_values=self.cache,
            use_cache=True,
            **given,
        ).last_hidden_state
        if isinstance(self.cache, CheckpointedCache):
            self.cache = self.cache.next_pass()
        return hidden

    def take_pending(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns pending inputs, their mask and positions (from 0), `[batch, n]`, and marks them as read."""
        embeds, mask = self.pending, self.pending_mask
        lengths = self.length + (mask.cumsum(dim=1) if mask.shape[1] > 1 else mask)
        self.mask = torch.cat([self.mask, mask], dim=1)
        self.length = lengths[:, -1:]
        self.pending, self.pending_mask = embeds[:, :0], mask[:, :0]
        return embeds, mask, (lengths - 1).clamp(min=0)

    def repeat(self, times: int) -> DecodingState:
        """Returns a state in which each row is repeated `times` times in a row, for the samples of a group.

        It shares no memory that changes with this state; where `times` is 1, it is this state.
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
        """Returns a copy of some rows, `[n]` indices; for rollouts, which keep no gradients."""
        other = copy.copy(self)
        other.cache = copy.copy(self.cache)
        other.cache.layers = [_rows_of(layer, rows) for layer in self.cache.layers]
        other.mask, other.length = self.mask[rows], self.length[rows]
        other.pending, other.pending_mask = self.pending[rows], self.pending_mask[rows]
        other.last_hidden = None if self.last_hidden is None else self.last_hidden[rows]
        return other

    def put_back(self, rows: torch.Tensor, other: DecodingState) -> None:
        """Adds the columns that `other`, a copy of these rows by `selected`, has read since, or has pending.

        All other rows get masked columns there.
        """
        for layer, newer in zip(self.cache.layers, other.cache.layers, strict=True):
            _put_back(layer, rows, newer)
        self.mask = _scattered(other.mask, rows, self.mask)
        self.length[rows] = other.length
        self.pending = _scattered(other.pending, rows, self.pending[:, :0])
        self.pending_mask = _scattered(other.pending_mask, rows, self.pending_mask[:, :0])
        if self.last_hidden is not None and other.last_hidden is not None:
            self.last_hidden = self.last_hidden.index_put((rows,), other.last_hidden)

    def view(self, rows: torch.Tensor) -> RowsView:
        """Returns a `Lookahead` of some rows, `[n]` indices; nothing may be pending."""
        return RowsView(self, rows)

    def pack(self) -> None:
        """Moves each row's visible columns to the end, and drops columns that no row uses; for rollouts only.

        Positions are computed from the mask, so a key may be in any column.
        """
        order = self.mask.argsort(dim=1, stable=True)
        self.mask = self.mask.gather(1, order)
        spare = self.mask.shape[1] - int(self.mask.sum(dim=1).max())
        self.mask, order = self.mask[:, spare:], order[:, spare:]
        for layer in self.cache.layers:
            layer.reorder(order)  # type: ignore[union-attr]


class RowsView:
    """A `Lookahead` of some rows. Their keys and values are copied only where there are drafts.

    Args:
        state: of the whole batch, without pending inputs.
        index: `[rows]`, indices of its rows.
    """

    def __init__(self, state: DecodingState, index: torch.Tensor):
        self.state, self.index = state, index
        self._copy: DecodingState | None = None

    @property
    def rows(self) -> int:
        """The number of rows of the view."""
        return len(self.index)

    def hidden_before(self, drafts: torch.Tensor | None = None) -> torch.Tensor:
        """Computes hidden states as `Lookahead` says."""
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


def _scattered(part: torch.Tensor, rows: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Appends the columns of `part` from the n-th on to `old` `[batch, n, ...]` in `rows`, else zeros."""
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
            _scattered(new.transpose(1, 2), rows, old.transpose(1, 2)).transpose(1, 2)
            for new, old in ((newer.keys, layer.keys), (newer.values, layer.values))
        )


def _repeated(cache: Cache, times: int) -> Cache:
    if isinstance(cache, CheckpointedCache):
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
