"""Which rows of a batch still go on: those that have ended leave it when they are half of it or more.

Rows of several states as one: for batches that rows join and leave while others are unfinished.

All states end in the same column; what stands before a shorter one is masked, and columns that no row uses
any more are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from transformers import DynamicCache

from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.kv_cache import GrowingLayer

LOOKS_EVERY = {"cuda": 4}
"""Steps or tokens between two looks at how many rows still go on; a look waits for the device."""
WORTH_LEAVING = 8
"""Rows below which a smaller batch saves nothing."""


class ActiveRows:
    """The rows of a state that still go on.

    Attributes:
        part: the state that they are read with: the whole one, or one of these rows alone.
        index: where they are among all rows.
    """

    def __init__(self, state: DecodingState):
        self.whole = self.part = state
        self.index: torch.Tensor | slice = slice(None)
        self._every = LOOKS_EVERY.get(state.mask.device.type, 1)

    def remaining(self, alive: torch.Tensor, place: int) -> torch.Tensor | None:
        """Which of the rows to keep, if any; None keeps all, for now.

        Args:
            alive: `[rows]`, 1 for a row that goes on; all rows of `part`.
            place: the number of the step or token.
        """
        if place % self._every:
            return None
        count, rows = int(alive.sum()), alive.shape[0]
        if count and (count > rows // 2 or rows < WORTH_LEAVING or not self.whole.can_shrink):
            return None
        return alive.nonzero()[:, 0]

    def column(self, values: torch.Tensor | None, place: int) -> torch.Tensor | None:
        """The column of `[all rows, columns, ...]` at a place, of these rows; None where there is nothing."""
        return None if values is None else values[self.index, place]

    def keep(self, rows: torch.Tensor) -> None:
        """Only these of the rows go on; the others are not read again."""
        self.part = self.part.selected(rows)
        self.index = rows if isinstance(self.index, slice) else self.index[rows]

    def set_aside(self, rows: torch.Tensor) -> None:
        """Only these of the rows go on until `together`."""
        self.together()
        self.index = rows if isinstance(self.index, slice) else self.index[rows]
        self.part = self.whole.selected(self.index)

    def together(self) -> None:
        """Brings all rows up to the last column again; those set aside have masked columns there."""
        if self.part is not self.whole:
            self.whole.put_back(cast(torch.Tensor, self.index), self.part)


def laid_out(parts: list[tuple[torch.Tensor | slice, torch.Tensor]], rows: int, width: int) -> torch.Tensor:
    """Joins columns, one after another, to `[rows, width, ...]`, with zeros where there are none.

    Args:
        parts: which rows (a slice: all), and their next columns, `[some rows, n, ...]`; one part at least.
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


def gathered(parts: Sequence[tuple[DecodingState, torch.Tensor]]) -> DecodingState:
    """Returns a state of some rows of each part, in their order; for rollouts, which keep no gradients.

    Args:
        parts: states of one backbone, and which of their rows, `[n]`.

    Raises:
        ValueError: the backbone keeps more of the past than keys and values.
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
        _gathered_layer(
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
    """`[rows, n, ...]` with zeros before it up to `width`."""
    missing = width - columns.shape[1]
    if not missing:
        return columns
    return torch.cat([columns.new_zeros(columns.shape[0], missing, *columns.shape[2:]), columns], dim=1)


def _gathered_layer(parts: Sequence[tuple[GrowingLayer, torch.Tensor, int]]) -> GrowingLayer:
    for layer, _, _ in parts:
        if not isinstance(layer, GrowingLayer):
            raise ValueError(
                f"this backbone has a cache of {type(layer).__name__}: its rows cannot join others"
            )
    return GrowingLayer.gathered(parts)
