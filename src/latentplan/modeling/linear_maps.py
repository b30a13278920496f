"""The linear maps and embeddings of a language model, with our products and our gradients of weights.

`install` puts them into a model of transformers in place of each layer's `forward`; names, weights and
classes of the layers stay.
"""

from __future__ import annotations

import weakref
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


class _Forward:
    """What stands in for the `forward` of a layer, which it does not keep alive."""

    def __init__(self, layer: Any):
        self._layer = weakref.ref(layer)

    @property
    def layer(self) -> Any:
        """The layer."""
        return self._layer()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Forward:
        return type(self)(memo.get(id(self.layer), self.layer))

    def __reduce__(self) -> tuple:
        return type(self), (self.layer,)


class LinearMap(_Forward):
    """The `forward` of a linear map."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        self.transposed = type(layer) is Conv1D

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """Inputs `[..., in]` to `[..., out]`."""
        layer = self.layer
        return linear(input, layer.weight, layer.bias, self.transposed)


class Lookup(_Forward):
    """The `forward` of an embedding."""

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """Ids `[...]` to rows `[..., hidden]`."""
        layer = self.layer
        collected = collecting(layer.weight)
        if collected is not None:
            return collected.lookup(input, layer.weight, layer.padding_idx)
        return F.embedding(input, layer.weight, layer.padding_idx)


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
    if collected is not None and (
        inputs.dtype == weight.dtype or torch.is_autocast_enabled(inputs.device.type)
    ):
        return collected.linear(inputs, weight, bias, transposed)
    outwards = weight.t() if transposed else weight
    if hasattr(weight, "ds_id") or not by_onednn(inputs, outwards):  # ZeRO-3 takes weights away after use
        return F.linear(inputs, outwards, bias)
    if not torch.is_grad_enabled():
        return product(inputs, outwards, bias)
    return _Product.apply(inputs, weight, bias, transposed)


class _Product(Function):
    """A product by oneDNN, whose gradients are due when its backward pass ends, as engines expect."""

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
        rows = inputs.reshape(-1, inputs.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        left, right = rows if ctx.transposed else reversed(rows)
        return (
            product(gradient, weight if ctx.transposed else weight.t()) if to_inputs else None,
            add_product(None, left, right) if to_weight else None,
            rows[1].sum(dim=0) if to_bias else None,
            None,
        )
