"""Reading the questions of a rollout: a pass over each length of them, and no more than has to be known.

Of a question keys and values are kept, and the hidden state of its last column. So questions whose lengths
differ much are read in parts, with little padding in each, which write into one cache. And of the last layer
all columns but the last need keys and values alone: the pass is left as soon as these are there, and the last
column is read as any single token.
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
from latentplan.modeling.efficiency.linear_layers import is_spread

Rows = torch.Tensor | slice
PASS_COSTS = {"cpu": 256}
"""What one more pass over questions costs, in tokens that could be read instead: weights go through memory
once more, matrix products become smaller, and operations are launched."""
PASS_COSTS_ELSEWHERE = 4096
TOKEN_COSTS = {"cpu": 128}
"""The same of a pass over one column, in rows; above it every row counts."""
TOKEN_COSTS_ELSEWHERE = 300


def prefill(state: DecodingState) -> torch.Tensor:
    """Reads left-padded questions, all that a new state holds; in one pass where gradients are kept.

    Returns:
        the hidden states of their last column, `[rows, hidden]`, which are `state.last_hidden` then.
    """
    layers = state.cache.layers
    if torch.is_grad_enabled() or not layers or any(type(layer) is not GrowingLayer for layer in layers):
        return state.read()[:, -1]
    embeds, mask = state.pending, state.pending_mask
    parts = _parts(mask)
    leaves = _is_worth_leaving(parts, mask, len(layers)) and _may_be_left(state.backbone)
    if len(parts) == 1 and not leaves:
        return state.read()[:, -1]
    end, hidden = mask.shape[1] - leaves, []
    for rows, start in parts:
        with suppress(_KeptError):
            hidden.append(_read_part(state, rows, slice(start, end), leaves))
    state.mask = mask[:, :end]
    state.length = state.mask.sum(dim=1, keepdim=True)
    state.pending, state.pending_mask = embeds[:, end:], mask[:, end:]
    if leaves:
        return state.read()[:, -1]
    last = hidden[0].new_empty(len(mask), hidden[0].shape[1])
    for (rows, _), each in zip(parts, hidden, strict=True):
        last[rows] = each
    state.last_hidden = last
    return last


def by_length(lengths: list[int], cost: int) -> list[list[int]]:
    """Rows in parts of similar length, so that what is read is least.

    Args:
        lengths: of the rows.
        cost: of a part beside its tokens, in tokens.

    Returns:
        the places of each part's rows, shorter ones first.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes = [lengths[place] for place in order]
    # For so many of the shorter rows: the least that they take, and where their last part begins.
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
    """Which rows of a left-padded mask to read together, and from which column on."""
    rows, width = mask.shape
    cost = PASS_COSTS.get(mask.device.type, PASS_COSTS_ELSEWHERE)
    if (rows - 1) * width <= cost:  # nothing to gain, so no look at the device
        return [(slice(None), 0)]
    # Two columns at least: the last may be read by itself.
    lengths = [max(2, width - start) for start in mask.argmax(dim=1).tolist()]
    parts = by_length(lengths, cost)
    if len(parts) == 1:
        return [(slice(None), 0)]
    return [
        (torch.tensor(part, device=mask.device), max(0, width - max(lengths[row] for row in part)))
        for part in parts
    ]


def _is_worth_leaving(parts: list[tuple[Rows, int]], mask: torch.Tensor, layers: int) -> bool:
    """Whether the rest of the last layer takes longer than a pass over one column."""
    rows, width = mask.shape
    tokens = sum((rows if isinstance(some, slice) else len(some)) * (width - start) for some, start in parts)
    return tokens > layers * max(rows, TOKEN_COSTS.get(mask.device.type, TOKEN_COSTS_ELSEWHERE))


def _may_be_left(backbone: PreTrainedModel) -> bool:
    """Whether a pass may end in its middle: nothing spreads, moves or watches a module until it is done."""
    return (
        not is_spread(backbone)
        and not torch_modules._global_forward_hooks
        and not any(
            module._forward_hooks or module._compiled_call_impl is not None or hasattr(module, "_hf_hook")
            for module in backbone.modules()
        )
    )


class _KeptError(Exception):
    """All layers have their keys and values."""


@dataclass
class _Part:
    """Some rows on their way through the layers.

    Attributes:
        rows: which of all.
        shape: all rows, and columns.
        layers: that have no keys and values of these rows yet.
        leaves: whether the pass ends with the last of them.
    """

    rows: Rows
    shape: tuple[int, int]
    layers: int
    leaves: bool


class _PartLayer(DynamicLayer):
    """A layer of a part: hands keys and values on to that of all rows."""

    def __init__(self, whole: GrowingLayer, part: _Part):
        super().__init__()
        self.whole, self.part = whole, part

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes a first pass, which is all that there is."""
        self.whole.write_first(self.part.rows, self.part.shape, key_states, value_states)
        self.part.layers -= 1
        if self.part.leaves and not self.part.layers:
            raise _KeptError
        return key_states, value_states


def _read_part(state: DecodingState, rows: Rows, columns: slice, leaves: bool) -> torch.Tensor:
    """Reads some rows and columns into the state's cache; their last hidden states, `[rows, hidden]`.

    Raises:
        _KeptError: the pass was left when it had come to the last layer.
    """
    mask = state.pending_mask
    alone = DecodingState(state.backbone, state.pending[rows, columns], mask[rows, columns])
    layers = cast(list[GrowingLayer], state.cache.layers)
    part = _Part(rows, (len(mask), columns.stop), len(layers), leaves)
    alone.cache.layers = [_PartLayer(layer, part) for layer in layers]
    return alone.read()[:, -1]
