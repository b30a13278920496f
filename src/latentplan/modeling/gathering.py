"""Rows of several contexts as one: for batches that rows join and leave while others go on.

All contexts end in the same column; what stands before a shorter one is masked, and columns that no row uses
any more are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from transformers import DynamicCache

from latentplan.modeling.context import Context
from latentplan.modeling.growing_cache import GrowingLayer


def gathered(parts: Sequence[tuple[Context, torch.Tensor]]) -> Context:
    """A context of some rows of each part, in their order; for rollouts, which keep no gradients.

    Args:
        parts: contexts of one backbone, with equally many inputs waiting, and which of their rows, `[n]`.

    Raises:
        ValueError: the backbone keeps more of the past than keys and values.
    """
    first = parts[0][0]
    masks, starts = [], []
    for context, rows in parts:
        mask = context.mask[rows]
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
        for layers in zip(*(cast(DynamicCache, context.cache).layers for context, _ in parts), strict=True)
    ]
    width = max(mask.shape[1] for mask in masks)
    other.mask = torch.cat([_widened(mask, width) for mask in masks])
    other.length = torch.cat([context.length[rows] for context, rows in parts])
    other.pending = torch.cat([context.pending[rows] for context, rows in parts])
    other.pending_mask = torch.cat([context.pending_mask[rows] for context, rows in parts])
    return other


def _widened(mask: torch.Tensor, width: int) -> torch.Tensor:
    """`[rows, columns]` with zeros before it up to `width`."""
    return torch.cat([mask.new_zeros(mask.shape[0], width - mask.shape[1]), mask], dim=1)


def _gathered_layer(parts: Sequence[tuple[GrowingLayer, torch.Tensor, int]]) -> GrowingLayer:
    for layer, _, _ in parts:
        if not isinstance(layer, GrowingLayer):
            raise ValueError(
                f"this backbone has a cache of {type(layer).__name__}: its rows cannot join others"
            )
    return GrowingLayer.gathered(parts)
