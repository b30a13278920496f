"""Batch compaction: a rollout reads its unfinished rows only, and a running batch admits new ones.

`UnfinishedRows` drops finished rows when they are at least half of the batch. `merge_states` joins rows of
several states to one batch; the states are aligned at their last column, the columns before a shorter one
are masked, and columns that no row uses are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from transformers import DynamicCache

from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.kv_cache import GrowingLayer

CHECK_EVERY = {"cuda": 4}
"""Steps or tokens between two checks of how many rows are unfinished; a check waits for the device."""
MIN_ROWS = 8
"""Rows below which a smaller batch saves no time."""


class UnfinishedRows:
    """The unfinished rows of a state.

    Args:
        state: of all rows.

    Attributes:
        part: the state with which they are read: `state` itself, or one that holds these rows alone.
        index: their indices among all rows, `[rows]`; a slice means all.
    """

    def __init__(self, state: DecodingState):
        self.state = self.part = state
        self.index: torch.Tensor | slice = slice(None)
        self._every = CHECK_EVERY.get(state.mask.device.type, 1)

    def rows_to_keep(self, alive: torch.Tensor, position: int) -> torch.Tensor | None:
        """Returns the indices of the rows to keep, `[n]`; None keeps all of them for now.

        Args:
            alive: `[rows]`, 1 for unfinished rows; all rows of `part`.
            position: of the step or token.
        """
        if position % self._every:
            return None
        count, rows = int(alive.sum()), alive.shape[0]
        if count and (count > rows // 2 or rows < MIN_ROWS or not self.state.can_compact):
            return None
        return alive.nonzero()[:, 0]

    def column(self, values: torch.Tensor | None, position: int) -> torch.Tensor | None:
        """Returns a column of `[all rows, columns, ...]` for these rows; None for None."""
        return None if values is None else values[self.index, position]

    def drop_finished(self, rows: torch.Tensor) -> None:
        """Keeps these of the rows, `[n]`; the others are never read again."""
        self.part = self.part.selected(rows)
        self.index = rows if isinstance(self.index, slice) else self.index[rows]

    def set_finished_aside(self, rows: torch.Tensor) -> None:
        """Keeps these of the rows, `[n]`, until `restore` brings the others back."""
        self.restore()
        self.index = rows if isinstance(self.index, slice) else self.index[rows]
        self.part = self.state.selected(self.index)

    def restore(self) -> None:
        """Brings all rows up to the last column again; rows that were set aside have masked columns there."""
        if self.part is not self.state:
            self.state.put_back(cast(torch.Tensor, self.index), self.part)


def lay_out(parts: list[tuple[torch.Tensor | slice, torch.Tensor]], rows: int, width: int) -> torch.Tensor:
    """Joins columns, one part after another, to `[rows, width, ...]`, with zeros where there are none.

    Args:
        parts: one or more pairs: indices of rows (a slice means all), and their next columns,
            `[some rows, n, ...]`.
        rows: of the batch.
        width: columns of the result.
    """
    if all(isinstance(index, slice) for index, _ in parts):
        joined = torch.cat([values for _, values in parts], dim=1)
        missing = width - joined.shape[1]
        return (
            torch.cat([joined, joined.new_zeros(rows, missing, *joined.shape[2:])], dim=1)
            if missing
            else joined
        )
    full, done = parts[0][1].new_zeros(rows, width, *parts[0][1].shape[2:]), 0
    for index, values in parts:
        full[index, done : done + values.shape[1]] = values
        done += values.shape[1]
    return full


def merge_states(parts: Sequence[tuple[DecodingState, torch.Tensor]]) -> DecodingState:
    """Returns a state of some rows of each part, in their order; for rollouts, which keep no gradients.

    Args:
        parts: states of one backbone, each with the indices of its rows, `[n]`.

    Raises:
        ValueError: the backbone caches more than keys and values.
    """
    first = parts[0][0]
    masks, starts = [], []
    for state, rows in parts:
        mask = state.mask[rows]
        used = mask.any(dim=0).nonzero()
        start = int(used[0]) if len(used) else mask.shape[1]
        masks.append(mask[:, start:])
        starts.append(start)
    other = copy.copy(first)
    other.cache = first.windows.new_cache()
    other.cache.layers = [
        _merged_layer(
            [(layer, rows, start) for layer, (_, rows), start in zip(layers, parts, starts, strict=True)]
        )
        for layers in zip(*(cast(DynamicCache, state.cache).layers for state, _ in parts), strict=True)
    ]
    width = max(mask.shape[1] for mask in masks)
    other.mask = torch.cat([_widened(mask, width) for mask in masks])
    other.length = torch.cat([state.length[rows] for state, rows in parts])
    wide = max(state.pending.shape[1] for state, _ in parts)
    other.pending = torch.cat([_widened(state.pending[rows], wide) for state, rows in parts])
    other.pending_mask = torch.cat([_widened(state.pending_mask[rows], wide) for state, rows in parts])
    last = [None if state.last_hidden is None else state.last_hidden[rows] for state, rows in parts]
    other.last_hidden = None if None in last else torch.cat(last)  # type: ignore[arg-type]
    return other


def _widened(columns: torch.Tensor, width: int) -> torch.Tensor:
    """Pads `[rows, n, ...]` with zeros on the left, up to `width`."""
    missing = width - columns.shape[1]
    if not missing:
        return columns
    return torch.cat([columns.new_zeros(columns.shape[0], missing, *columns.shape[2:]), columns], dim=1)


def _merged_layer(parts: Sequence[tuple[GrowingLayer, torch.Tensor, int]]) -> GrowingLayer:
    for layer, _, _ in parts:
        if not isinstance(layer, GrowingLayer):
            raise ValueError(
                f"this backbone has a cache of {type(layer).__name__}: its rows cannot be merged with others"
            )
    return GrowingLayer.merged(parts)
