"""Prefill: reads the questions of a rollout with little padding and without unused computation.

A rollout needs the keys and values of a question, and the last hidden state of its last column. Questions
of very different lengths are therefore read in several parts with little padding each, which write into one
cache. And in the last layer, all columns but the last need keys and values alone: the pass stops as soon as
these are computed, and the last column is then read like any single token.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn.modules import module as torch_modules
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.kv_cache import GrowingLayer
from latentplan.modeling.efficiency.linear_layers import has_sharded_weights

Rows = torch.Tensor | slice
PASS_COSTS = {"cpu": 256}
"""The overhead of one more pass over questions, in tokens that could be read instead: the weights are
loaded once more, matmuls become smaller, and kernels are launched."""
PASS_COSTS_ELSEWHERE = 4096
TOKEN_COSTS = {"cpu": 128}
"""The same for a pass over one column, in rows; above this number the cost grows with the rows."""
TOKEN_COSTS_ELSEWHERE = 300


def prefill(state: DecodingState) -> torch.Tensor:
    """Reads the left-padded questions that are pending in a new state; in one pass where gradients are
    enabled.

    Returns:
        The last hidden states of their last column, `[rows, hidden]`, as in `state.last_hidden`.
    """
    layers = state.cache.layers
    if torch.is_grad_enabled() or not layers or any(type(layer) is not GrowingLayer for layer in layers):
        return state.read()[:, -1]
    embeds, mask = state.pending, state.pending_mask
    parts = _parts(mask)
    stops_early = _saves_time(parts, mask, len(layers)) and _may_stop_early(state.backbone)
    if len(parts) == 1 and not stops_early:
        return state.read()[:, -1]
    end, hidden = mask.shape[1] - stops_early, []
    for rows, start in parts:
        with suppress(_StoppedEarly):
            hidden.append(_read_part(state, rows, slice(start, end), stops_early))
    state.mask = mask[:, :end]
    state.length = state.mask.sum(dim=1, keepdim=True)
    state.pending, state.pending_mask = embeds[:, end:], mask[:, end:]
    if stops_early:
        return state.read()[:, -1]
    last = hidden[0].new_empty(len(mask), hidden[0].shape[1])
    for (rows, _), each in zip(parts, hidden, strict=True):
        last[rows] = each
    state.last_hidden = last
    return last


def by_length(lengths: list[int], cost: int) -> list[list[int]]:
    """Divides rows into parts of similar length such that the total cost is least.

    Args:
        lengths: of the rows.
        cost: of a part in addition to its tokens, in tokens.

    Returns:
        The indices of each part's rows, shorter rows first.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes = [lengths[index] for index in order]
    # By number of shorter rows: their least cost, and the start of their last part.
    least = {0: (0, 0)}
    for end in range(1, len(order) + 1):
        if end == len(order) or sizes[end] > sizes[end - 1]:
            least[end] = min(
                (before + cost + (end - start) * sizes[end - 1], start)
                for start, (before, _) in least.items()
            )
    parts, end = [], len(order)
    while end:
        start = least[end][1]
        parts.append(order[start:end])
        end = start
    return parts[::-1]


def _parts(mask: torch.Tensor) -> list[tuple[Rows, int]]:
    """Says which rows of a left-padded mask to read together, and from which column on."""
    rows, width = mask.shape
    cost = PASS_COSTS.get(mask.device.type, PASS_COSTS_ELSEWHERE)
    if (rows - 1) * width <= cost:  # nothing to gain, so no wait for the device
        return [(slice(None), 0)]
    # At least two columns: the last may be read by itself.
    lengths = [max(2, width - start) for start in mask.argmax(dim=1).tolist()]
    parts = by_length(lengths, cost)
    if len(parts) == 1:
        return [(slice(None), 0)]
    return [
        (torch.tensor(part, device=mask.device), max(0, width - max(lengths[row] for row in part)))
        for part in parts
    ]


def _saves_time(parts: list[tuple[Rows, int]], mask: torch.Tensor, layers: int) -> bool:
    """Says whether the rest of the last layer takes longer than a pass over one column."""
    rows, width = mask.shape
    tokens = sum((rows if isinstance(some, slice) else len(some)) * (width - start) for some, start in parts)
    return tokens > layers * max(rows, TOKEN_COSTS.get(mask.device.type, TOKEN_COSTS_ELSEWHERE))


def _may_stop_early(backbone: PreTrainedModel) -> bool:
    """Says whether a pass may be aborted: no module is sharded, compiled, or has hooks that run after it."""
    return (
        not has_sharded_weights(backbone)
        and not torch_modules._global_forward_hooks
        and not any(
            module._forward_hooks or module._compiled_call_impl is not None or hasattr(module, "_hf_hook")
            for module in backbone.modules()
        )
    )


class _StoppedEarly(Exception):  # noqa: N818 (control flow)
    """All layers have their keys and values."""


@dataclass
class _Part:
    """Some rows during their pass through the layers.

    Attributes:
        rows: indices among all rows.
        shape: number of all rows, and of columns.
        layers: number of layers that have no keys and values of these rows yet.
        stops_early: whether the pass stops with the last of them.
    """

    rows: Rows
    shape: tuple[int, int]
    layers: int
    stops_early: bool


class _PartLayer(DynamicLayer):
    """A layer of a part, which writes keys and values to the layer of all rows."""

    def __init__(self, target: GrowingLayer, part: _Part):
        super().__init__()
        self.target, self.part = target, part

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the keys and values of the part's only pass."""
        self.target.write_first(self.part.rows, self.part.shape, key_states, value_states)
        self.part.layers -= 1
        if self.part.stops_early and not self.part.layers:
            raise _StoppedEarly
        return key_states, value_states


def _read_part(state: DecodingState, rows: Rows, columns: slice, stops_early: bool) -> torch.Tensor:
    """Reads some rows and columns into the state's cache; returns their last hidden states, `[rows, hidden]`.

    Raises:
        _StoppedEarly: the pass stopped in the last layer.
    """
    mask = state.pending_mask
    alone = DecodingState(state.backbone, state.pending[rows, columns], mask[rows, columns])
    layers = cast(list[GrowingLayer], state.cache.layers)
    part = _Part(rows, (len(mask), columns.stop), len(layers), stops_early)
    alone.cache.layers = [_PartLayer(layer, part) for layer in layers]
    return alone.read()[:, -1]
