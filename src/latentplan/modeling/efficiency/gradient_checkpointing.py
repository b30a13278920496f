"""Gradient checkpointing that works through the latent passes.

transformers drops the KV cache when it checkpoints a layer, because a layer that is run again for the
backward pass would append its keys and values a second time. Here every pass gets a cache of its own, which
holds the keys and values of earlier passes as they were: running a layer again gives what it gave before,
and gradients flow into the earlier passes. Only the inputs of each layer and the keys and values of each
position are kept; the chunks are joined when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from latentplan.modeling.efficiency.linear_layers import recomputable

Chunk = tuple[torch.Tensor, torch.Tensor]


class RecomputableLayer(DynamicLayer):
    """A layer's keys and values: chunks `[batch, heads, tokens, head]` of earlier passes, and this pass's."""

    def __init__(self, past: tuple[Chunk, ...] = ()):
        super().__init__()
        self.past = past
        self.new: Chunk | None = None
        if past:
            self.lazy_initialization(*past[0])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Chunk:
        """All keys and values up to and with those of this pass; calling it again changes nothing."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.new is None:
            self.new = (key_states, value_states)
        keys = [*(keys for keys, _ in self.past), key_states]
        values = [*(values for _, values in self.past), value_states]
        return torch.cat(keys, dim=-2), torch.cat(values, dim=-2)

    def get_seq_length(self) -> int:
        """Positions read by earlier passes."""
        return sum(keys.shape[-2] for keys, _ in self.past)

    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks of earlier passes and of this one."""
        return self.past if self.new is None else (*self.past, self.new)

    def truncated(self, columns: int) -> RecomputableLayer:
        """The layer for the next pass, without the last columns, which lie in the last chunk."""
        *before, (keys, values) = self.chunks()
        left = keys.shape[-2] - columns
        last = [(keys[..., :left, :], values[..., :left, :])] if left else []
        return RecomputableLayer((*before, *last))

    def repeated(self, times: int) -> RecomputableLayer:
        """The layer for the next pass, every row `times` over."""
        return RecomputableLayer(
            tuple(
                (keys.repeat_interleave(times, dim=0), values.repeat_interleave(times, dim=0))
                for keys, values in self.chunks()
            )
        )


class RecomputableCache(Cache):
    """The cache of one pass; `next_pass` gives that of the following one."""

    def __init__(self, layers: list[RecomputableLayer] | None = None):
        if layers is None:
            super().__init__(layer_class_to_replicate=RecomputableLayer)
        else:
            super().__init__(layers=layers)  # type: ignore[arg-type]

    def next_pass(self) -> RecomputableCache:
        """A cache that holds what has been read so far."""
        return RecomputableCache([RecomputableLayer(layer.chunks()) for layer in self.layers])  # type: ignore[union-attr]

    def truncated(self, columns: int) -> RecomputableCache:
        """What has been read so far, without the last columns."""
        return RecomputableCache([layer.truncated(columns) for layer in self.layers])  # type: ignore[union-attr]

    def repeated(self, times: int) -> RecomputableCache:
        """What has been read so far, every row `times` over."""
        return RecomputableCache([layer.repeated(times) for layer in self.layers])  # type: ignore[union-attr]


class _Recomputed:
    """A layer's `forward` that keeps its inputs only and runs again when gradients are needed."""

    def __init__(self, forward: Callable):
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(recomputable(self.forward), *args, use_reentrant=False, **kwargs)


def recompute_layers(backbone: PreTrainedModel) -> None:
    """From now on the decoder layers of `backbone` are run again in the backward pass.

    Raises:
        ValueError: the architecture has no layers that transformers can checkpoint.
    """
    layers = decoder_layers(backbone)
    if not layers:
        raise ValueError(
            f"gradient_checkpointing: {type(backbone).__name__} has no layers that can be checkpointed; "
            "set gradient_checkpointing to false"
        )
    for layer in layers:
        if not isinstance(layer.forward, _Recomputed):
            layer.forward = _Recomputed(layer.forward)  # type: ignore[method-assign]


def recomputes(backbone: PreTrainedModel) -> bool:
    """Whether `recompute_layers` was called on `backbone` and gradients are wanted now."""
    if not torch.is_grad_enabled():
        return False
    return any(isinstance(layer.forward, _Recomputed) for layer in decoder_layers(backbone))


def decoder_layers(backbone: PreTrainedModel) -> list[nn.Module]:
    """The layers of a language model, from the first to the last."""
    return [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
