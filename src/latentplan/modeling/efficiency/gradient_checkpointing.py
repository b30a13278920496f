"""Gradient checkpointing through many passes with a KV cache, as latents need it.

transformers drops the KV cache when it checkpoints a layer, because a layer that is recomputed in the
backward pass would append its keys and values a second time. Here every pass has a cache of its own, which
holds the keys and values of earlier passes as they were: recomputing a layer gives the same result, and
gradients flow into the earlier passes. Only the inputs of each layer, and the keys and values of each
position, are kept; they are concatenated when they are needed.
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

from latentplan.modeling.efficiency.linear_layers import checkpointable

Chunk = tuple[torch.Tensor, torch.Tensor]


class CheckpointedLayer(DynamicLayer):
    """A layer's keys and values: chunks `[batch, heads, tokens, head]` of earlier passes and of this one."""

    def __init__(self, past: tuple[Chunk, ...] = ()):
        super().__init__()
        self.past = past
        self.new: Chunk | None = None
        if past:
            self.lazy_initialization(*past[0])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Chunk:
        """Returns all keys and values, including those of this pass; a second call changes nothing."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.new is None:
            self.new = (key_states, value_states)
        keys = [*(keys for keys, _ in self.past), key_states]
        values = [*(values for _, values in self.past), value_states]
        return torch.cat(keys, dim=-2), torch.cat(values, dim=-2)

    def get_seq_length(self) -> int:
        """Counts the positions that earlier passes read."""
        return sum(keys.shape[-2] for keys, _ in self.past)

    def chunks(self) -> tuple[Chunk, ...]:
        """Returns the chunks of earlier passes and of this one."""
        return self.past if self.new is None else (*self.past, self.new)

    def truncated(self, columns: int) -> CheckpointedLayer:
        """Returns the layer of the next pass without the last columns, which are in the last chunk."""
        *before, (keys, values) = self.chunks()
        kept = keys.shape[-2] - columns
        last = [(keys[..., :kept, :], values[..., :kept, :])] if kept else []
        return CheckpointedLayer((*before, *last))

    def repeated(self, times: int) -> CheckpointedLayer:
        """Returns the layer of the next pass with each row repeated `times` times."""
        return CheckpointedLayer(
            tuple(
                (keys.repeat_interleave(times, dim=0), values.repeat_interleave(times, dim=0))
                for keys, values in self.chunks()
            )
        )


class CheckpointedCache(Cache):
    """The cache of one pass; `next_pass` returns that of the following one."""

    def __init__(self, layers: list[CheckpointedLayer] | None = None):
        if layers is None:
            super().__init__(layer_class_to_replicate=CheckpointedLayer)
        else:
            super().__init__(layers=layers)  # type: ignore[arg-type]

    def next_pass(self) -> CheckpointedCache:
        """Returns a cache that holds all columns read so far."""
        return CheckpointedCache([CheckpointedLayer(layer.chunks()) for layer in self.layers])  # type: ignore[union-attr]

    def truncated(self, columns: int) -> CheckpointedCache:
        """Returns a cache that holds all columns read so far but the last ones."""
        return CheckpointedCache([layer.truncated(columns) for layer in self.layers])  # type: ignore[union-attr]

    def repeated(self, times: int) -> CheckpointedCache:
        """Returns a cache that holds all columns read so far, each row repeated `times` times."""
        return CheckpointedCache([layer.repeated(times) for layer in self.layers])  # type: ignore[union-attr]


class _CheckpointedForward:
    """A layer's `forward` that keeps only its inputs and is recomputed in the backward pass."""

    def __init__(self, forward: Callable):
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(checkpointable(self.forward), *args, use_reentrant=False, **kwargs)


def checkpoint_layers(backbone: PreTrainedModel) -> None:
    """Turns on gradient checkpointing: the decoder layers of `backbone` are recomputed in the backward pass.

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
        if not isinstance(layer.forward, _CheckpointedForward):
            layer.forward = _CheckpointedForward(layer.forward)  # type: ignore[method-assign]


def is_checkpointed(backbone: PreTrainedModel) -> bool:
    """Says whether `checkpoint_layers` was called on `backbone` and gradients are enabled now."""
    if not torch.is_grad_enabled():
        return False
    return any(isinstance(layer.forward, _CheckpointedForward) for layer in decoder_layers(backbone))


def decoder_layers(backbone: PreTrainedModel) -> list[nn.Module]:
    """Returns the layers of a language model, from the first to the last."""
    return [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
