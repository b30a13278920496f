"""CUDA graphs of single-token passes: one launch where transformers makes hundreds.

A graph replays the same kernels on the same memory. Therefore keys, values and mask have a fixed width, the
column that a pass writes is a tensor, and inputs are copied to the memory that the graph reads. The graph
reads the weights in place, so it sees what training changes; if they have moved, a new graph is captured.

This is off unless LATENTPLAN_CUDA_GRAPHS=1, because it has not been measured on a GPU (docs/performance.md).
"""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from latentplan.modeling.backbones import body, takes_positions
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.kv_cache import GrowingLayer
from latentplan.modeling.efficiency.linear_layers import has_sharded_weights

DEVICES = ("cuda",)
_WIDTH = 64
"""Widths are multiples of this, so that questions of similar length share a graph."""
_KEPT = 4
"""Graphs that are kept of a model, each with its keys and values."""


class StaticLayer(DynamicLayer):
    """A layer's keys and values `[batch, heads, width, head]` in fixed memory; a pass writes one column.

    Args:
        keys, values: the memory.
        column: `[1]` int64, the index of the next column.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, column: torch.Tensor):
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values, self.column = keys, values, column
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes one column; returns all columns, also those that have not been written yet."""
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values


class GraphedPasses:
    """Single-token passes over a fixed number of rows, whose graph is captured at the first call.

    They hold no reference to the language model, which can be freed when nothing else needs it.

    Args:
        backbone: the language model.
        state: gives the number of rows and the shapes of the layers.
        width: columns of keys, values and mask.
    """

    def __init__(self, backbone: PreTrainedModel, state: DecodingState, width: int):
        rows, device = state.mask.shape[0], state.mask.device
        self.windows, self.width = state.windows, width
        self.weights = _addresses(backbone)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        self.mask = torch.zeros(rows, width, dtype=torch.long, device=device)
        self.positions = torch.zeros(rows, 1, dtype=torch.long, device=device)
        hidden = state.pending.shape[2]
        self.embeds = torch.zeros(rows, 1, hidden, dtype=backbone.dtype, device=device)
        self.cache = DynamicCache()
        self.cache.layers = [
            StaticLayer(_wide(layer.keys, width), _wide(layer.values, width), self.column)
            for layer in _layers(state.cache)
        ]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output: torch.Tensor | None = None
        self._may_capture = device.type == "cuda"

    def take(self, state: DecodingState) -> None:
        """Copies the keys, values and mask of a state."""
        read = state.mask.shape[1]
        for mine, layer in zip(_layers(self.cache), _layers(state.cache), strict=True):
            mine.keys[:, :, :read].copy_(layer.keys[:, :, :read])
            mine.values[:, :, :read].copy_(layer.values[:, :, :read])
        self.mask.zero_()
        self.mask[:, :read].copy_(state.mask)

    def __call__(
        self,
        backbone: PreTrainedModel,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        column: int,
    ) -> torch.Tensor:
        """Reads one column and returns its last hidden states, `[rows, 1, hidden]`.

        Args:
            backbone: the language model.
            embeds: `[rows, 1, hidden]`.
            mask, positions: `[rows, 1]`.
            column: its index.
        """
        self.column.fill_(column)
        self.embeds.copy_(embeds)
        self.mask[:, column : column + 1] = mask
        self.positions.copy_(positions)
        if self._graph is None and self._may_capture:
            self._try_to_capture(backbone)
        if self._graph is None or self._output is None:
            return self._read(backbone)
        self._graph.replay()
        return self._output.clone()

    def _read(self, backbone: PreTrainedModel) -> torch.Tensor:
        model = body(backbone)
        given = {"position_ids": self.positions} if takes_positions(model) else {}
        return model(
            inputs_embeds=self.embeds,
            attention_mask=self.windows.attention_mask(self.mask, 1, backbone.dtype),
            past_key_values=self.cache,
            use_cache=True,
            **given,
        ).last_hidden_state

    def _try_to_capture(self, backbone: PreTrainedModel) -> None:
        try:
            # A failed capture leaves its own stream current: the outer one is restored here.
            stream = torch.cuda.current_stream(self.mask.device)
            with torch.cuda.device(self.mask.device), torch.cuda.stream(stream):
                self._capture(backbone)
        except RuntimeError as error:
            self._may_capture = False
            kind = backbone.config.model_type
            warnings.warn(
                f"a pass of {kind} could not be captured as a CUDA graph and runs without ({error})",
                stacklevel=2,
            )

    def _capture(self, backbone: PreTrainedModel) -> None:
        # PyTorch requires warm-up passes on a side stream, where libraries choose kernels and workspaces.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._read(backbone)
            self._read(backbone)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Threads that load data or monitor NCCL may use the device during the capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._output = self._read(backbone)
        self._graph = graph


class GraphedState(DecodingState):
    """A state that reads through CUDA graphs, one token at a time; its rows are not compacted."""

    can_compact = False

    def __init__(self, passes: GraphedPasses, state: DecodingState):
        vars(self).update(vars(state))
        self.cache, self.passes = passes.cache, passes
        passes.take(state)

    def _pass(self) -> torch.Tensor:
        first = self.mask.shape[1]
        embeds, mask, positions = self.take_pending()
        columns = [
            self.passes(
                self.backbone,
                embeds[:, index : index + 1],
                mask[:, index : index + 1],
                positions[:, index : index + 1],
                first + index,
            )
            for index in range(embeds.shape[1])
        ]
        return torch.cat(columns, dim=1)

    def truncate(self, columns: int) -> None:
        """Drops the last columns that were read; their memory is written again."""
        read = self.mask.shape[1]
        self.length = self.length - self.mask[:, -columns:].sum(dim=1, keepdim=True)
        self.mask = self.mask[:, :-columns]
        self.passes.mask[:, read - columns : read] = 0

    def repeat(self, times: int) -> DecodingState:
        """Repeats rows as `DecodingState.repeat` does; the new state uses no graphs."""
        if times == 1:
            return self
        plain = DecodingState.__new__(DecodingState)
        plain.__dict__.update({name: value for name, value in vars(self).items() if name != "passes"})
        plain.cache = self.windows.new_cache()
        for mine, layer in zip(_layers(self.cache), _layers(plain.cache), strict=True):
            read = slice(0, self.mask.shape[1])
            layer.update(mine.keys[:, :, read], mine.values[:, :, read])
        return plain.repeat(times)


_graphs: WeakKeyDictionary[PreTrainedModel, OrderedDict[tuple[int, int], GraphedPasses | None]] = (
    WeakKeyDictionary()
)


def with_cuda_graphs(state: DecodingState, columns: int) -> DecodingState:
    """Returns the same state, which reads up to `columns` more columns through CUDA graphs where possible.

    The graph of a size is captured when the size occurs for the second time: for a single rollout it would
        cost
    more than it saves.
    """
    width = -(-(state.mask.shape[1] + columns) // _WIDTH) * _WIDTH
    if not _possible(state, width):
        return state
    known = _graphs.setdefault(state.backbone, OrderedDict())
    key = (state.mask.shape[0], width)
    if key not in known:
        known[key] = None
        return state
    passes = known.pop(key)
    if passes is None or passes.weights != _addresses(state.backbone):
        passes = GraphedPasses(state.backbone, state, width)
    known[key] = passes
    while sum(each is not None for each in known.values()) > _KEPT:
        known.popitem(last=False)
    return GraphedState(passes, state)


def _possible(state: DecodingState, width: int) -> bool:
    device = state.mask.device.type
    if device not in DEVICES or os.environ.get("LATENTPLAN_CUDA_GRAPHS", "0") != "1":
        return False
    if torch.is_autocast_enabled(device):
        warnings.warn(
            "LATENTPLAN_CUDA_GRAPHS has no effect under autocast, whose copies of the weights do not last: "
            "load the model in bfloat16",
            stacklevel=2,
        )
        return False
    return (
        state.windows.takes_ready_masks(width)
        and next(state.backbone.parameters()).device.type == device
        and not has_sharded_weights(state.backbone)
        and all(type(layer) is GrowingLayer for layer in state.cache.layers)
    )


def _addresses(backbone: PreTrainedModel) -> list[int]:
    """Returns the addresses of the weights, at which a graph reads them."""
    return [weight.data_ptr() for weight in backbone.parameters()]


def _layers(cache: Any) -> list[Any]:
    return cache.layers


def _wide(part: torch.Tensor, width: int) -> torch.Tensor:
    return part.new_zeros(part.shape[0], part.shape[1], width, part.shape[3])
