"""A KV cache for rollouts: written in place into memory reserved ahead, so that no pass copies the past.

Views of the memory are handed out and overwritten by nothing, but autograd would have to keep every one of
them: passes with gradients use transformers' own cache, which concatenates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

_HEADROOM = 32
"""Columns reserved beyond what is asked for."""


def reserved(columns: int) -> int:
    """The most columns that are reserved where so many are read, one after another."""
    return 2 * columns


class GrowingLayer(DynamicLayer):
    """A layer's keys and values `[batch, heads, tokens, head]`, the front part of reserved memory."""

    keys: torch.Tensor
    values: torch.Tensor
    _keys: torch.Tensor
    _values: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Reserves memory for a first pass of this size."""
        self.dtype, self.device = key_states.dtype, key_states.device
        width = key_states.shape[-2] + _HEADROOM
        self._keys, self._values = _reserve(key_states, width), _reserve(value_states, width)
        self._show(0)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes a pass behind what is there; all keys and values up to it."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            # Twice as much each time: all the copying of a rollout is at most as long as the rollout.
            self._resize(reserved(end))
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def repeated(self, times: int) -> GrowingLayer:
        """A copy with every row `times` over."""
        other = GrowingLayer()
        if self.is_initialized:
            other.lazy_initialization(
                *(part[:1].expand(part.shape[0] * times, -1, -1, -1) for part in (self.keys, self.values))
            )
            other._show(self.keys.shape[-2])
            for new, old in ((other.keys, self.keys), (other.values, self.values)):
                new.unflatten(0, (-1, times)).copy_(old.unsqueeze(1))
        return other

    def selected(self, rows: torch.Tensor) -> GrowingLayer:
        """A copy of some rows."""
        other = GrowingLayer()
        if self.is_initialized:
            keys, values = self.keys[rows], self.values[rows]
            other.lazy_initialization(keys, values)
            other._show(keys.shape[-2])
            other.keys.copy_(keys)
            other.values.copy_(values)
        return other

    @classmethod
    def gathered(cls, parts: Sequence[tuple[GrowingLayer, torch.Tensor, int]]) -> GrowingLayer:
        """Rows of several layers, each from a column on, with their last columns side by side.

        Zeros stand before the shorter ones, not whatever the memory held: see `put_back`.
        """
        like, width = parts[0][0].keys, max(layer.keys.shape[-2] - start for layer, _, start in parts)
        rows = sum(len(chosen) for _, chosen, _ in parts)
        new = cls()
        # Of the first entry alone: what is expanded takes no memory.
        new.lazy_initialization(*(like[:1, :, :1].expand(rows, -1, width, -1) for _ in range(2)))
        new._show(width)
        done = 0
        for layer, chosen, start in parts:
            those, missing = slice(done, done + len(chosen)), width - (layer.keys.shape[-2] - start)
            for mine, theirs in ((new.keys, layer.keys), (new.values, layer.values)):
                mine[those, :, :missing] = 0
                torch.index_select(theirs[:, :, start:], 0, chosen, out=mine[those, :, missing:])
            done += len(chosen)
        return new

    def write_first(
        self,
        rows: torch.Tensor | slice,
        shape: tuple[int, int],
        key_states: torch.Tensor,
        value_states: torch.Tensor,
    ) -> None:
        """Writes a first pass of some rows into the last columns; zeros stand before it: see `put_back`.

        Args:
            rows: which of all rows.
            shape: of the layer: all rows, and columns.
            key_states, value_states: `[some rows, heads, tokens, head]`.
        """
        count, width = shape
        if not self.is_initialized:
            self.lazy_initialization(
                *(part[:1, :, :1].expand(count, -1, width, -1) for part in (key_states, value_states))
            )
            self._show(width)
        missing = width - key_states.shape[-2]
        for mine, theirs in ((self.keys, key_states), (self.values, value_states)):
            mine[rows, :, :missing] = 0
            mine[rows, :, missing:] = theirs

    def truncate(self, columns: int) -> None:
        """Forgets the last columns; their memory is written again."""
        self._show(self.keys.shape[-2] - columns)

    def reorder(self, order: torch.Tensor) -> None:
        """Puts the columns of each row into another order, `[rows, columns]`, which may leave some out."""
        index = order[:, None, :, None]
        packed = [part.take_along_dim(index, dim=2) for part in (self.keys, self.values)]
        self._show(order.shape[1])
        for part, values in zip((self.keys, self.values), packed, strict=True):
            part.copy_(values)

    def put_back(self, rows: torch.Tensor, other: GrowingLayer) -> None:
        """Writes what `other`, once these rows, has read since; all other rows hold zeros there.

        Not whatever the memory held: a masked NaN would still be one after attention.
        """
        start, end = self.keys.shape[-2], other.keys.shape[-2]
        if end > self._keys.shape[-2]:
            self._resize(reserved(end))
        self._show(end)
        self.keys[:, :, start:end] = 0
        self.values[:, :, start:end] = 0
        self.keys[rows, :, start:end] = other.keys[:, :, start:end]
        self.values[rows, :, start:end] = other.values[:, :, start:end]

    def _show(self, end: int) -> None:
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]

    def _resize(self, width: int) -> None:
        keys, values = self.keys, self.values
        end = keys.shape[-2]
        self._keys, self._values = _reserve(keys, width), _reserve(values, width)
        self._show(end)
        self.keys.copy_(keys)
        self.values.copy_(values)


def _reserve(like: torch.Tensor, width: int) -> torch.Tensor:
    return like.new_empty(like.shape[0], like.shape[1], width, like.shape[3])
