"""The linear maps and embeddings of a language model, with our products and our gradients of weights.

`install` puts them into a model of transformers in place of each layer's `forward`; names, weights and
classes of the layers stay.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from latentplan.modeling.products import add_product, by_onednn, product
from latentplan.modeling.weight_gradients import collecting


def install(model: nn.Module) -> None:
    """From now on the linear maps and embeddings in `model` compute as `linear` and `lookup` do.

    Layers of other classes, such as quantised ones, and those whose `forward` was replaced before stay.
    """
    for layer in model.modules():
        if "forward" in layer.__dict__:
            continue
        if type(layer) in (nn.Linear, Conv1D):
            layer.forward = LinearMap(layer)  # type: ignore[method-assign]
        elif type(layer) is nn.Embedding and not (
            layer.sparse or layer.scale_grad_by_freq or layer.max_norm is not None
        ):
            layer.forward = Lookup(layer)  # type: ignore[method-assign,assignment]


class LinearMap:
    """The `forward` of a linear map."""

    def __init__(self, layer: Any):
        self.layer, self.transposed = layer, type(layer) is Conv1D

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs `[..., in]` to `[..., out]`."""
        return linear(inputs, self.layer.weight, self.layer.bias, self.transposed)


class Lookup:
    """The `forward` of an embedding."""

    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids `[...]` to rows `[..., hidden]`."""
        weight, padding_idx = self.layer.weight, self.layer.padding_idx
        collected = collecting(weight)
        if collected is not None:
            return collected.lookup(ids, weight, padding_idx)
        return F.embedding(ids, weight, padding_idx)


def linear(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, transposed: bool = False
) -> torch.Tensor:
    """As `torch.nn.functional.linear`, with gradients.

    Args:
        inputs: `[..., in]`.
        weight: `[out, in]`, or `[in, out]` where it is `transposed` (GPT-2's).
        bias: `[out]` or None.
    """
    collected = collecting(weight)
    if collected is not None:
        return collected.linear(inputs, weight, bias, transposed)
    outwards = weight.t() if transposed else weight
    if hasattr(weight, "ds_id") or not by_onednn(inputs, outwards):  # ZeRO-3 takes weights away after use
        return F.linear(inputs, outwards, bias)
    if not torch.is_grad_enabled():
        return product(inputs, outwards, bias)
    return _Linear.apply(inputs, weight, bias, transposed)


class _Linear(Function):
    """A product by oneDNN."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, transposed: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.transposed = transposed
        return product(inputs, weight.t() if transposed else weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        inputs, weight = ctx.saved_tensors
        to_inputs, to_weight, to_bias, _ = ctx.needs_input_grad
        rows = inputs.flatten(0, -2), gradient.flatten(0, -2)
        left, right = rows if ctx.transposed else reversed(rows)
        return (
            product(gradient, weight if ctx.transposed else weight.t()) if to_inputs else None,
            add_product(None, left, right) if to_weight else None,
            rows[1].sum(dim=0) if to_bias else None,
            None,
        )
