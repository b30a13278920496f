"""Rows of several states as one: for batches that rows join and leave while others are unfinished.

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
from latentplan.modeling.growing_cache import GrowingLayer


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
