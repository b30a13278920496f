"""Gradients of weights that are used in many passes, computed in one product at the end.

A latent chain is one pass after another, of a column each. Autograd computes the gradient of every weight
in every pass and adds them up: for few rows that is memory of the model's size, written and read several
times a pass, for a handful of multiplications. Here each pass only keeps what the gradient is made of, its
inputs and the gradient of its outputs, and all passes are multiplied together when the last has left its
share. The sum is the same; the gradients that run back through the passes themselves are not touched.

The linear maps and embeddings of a language model, with our products and our gradients of weights.

`install` puts them into a model of transformers in place of each layer's `forward`; names, weights and
classes of the layers stay.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from latentplan.modeling.efficiency.matmul import add_product, by_onednn, product

ROWS_AT_ONCE = 1024
"""Rows that are multiplied as soon as there are so many: more would not make a product any faster."""
WORTH_DEFERRING = {"cpu": 2**18, "cuda": 2**22}
"""Elements of a weight, by device, below which adding up gradients is cheaper than what is done here.

A CPU's was measured. A GPU's follows from the four times that 2^22 elements are moved in bfloat16, 10 µs on
an H100 by its data sheet, which is about what our Python is taken to cost a pass.
"""

_active = threading.local()


@contextmanager
def deferred_weight_gradients(module: nn.Module) -> Iterator[None]:
    """Linear maps and embeddings that are used in here get the gradients of their weights in one product.

    Does nothing without gradients, and where engines spread the weights over devices (FSDP2, ZeRO-3): those
    count on the gradients of a layer when its backward pass ends.

    Args:
        module: what is used in here.
    """
    if not torch.is_grad_enabled() or is_spread(module):
        yield
        return
    with _collecting(WeightGradients()):
        yield


def is_spread(module: nn.Module) -> bool:
    """Whether FSDP2 or DeepSpeed ZeRO-3 gathers weights when they are used, each time to other memory."""
    return any(hasattr(each, "unshard") for each in module.modules()) or any(
        hasattr(weight, "ds_id") for weight in module.parameters()
    )


def collecting(weight: torch.Tensor) -> WeightGradients | None:
    """What this weight gives its gradient to at the moment; None where autograd adds it up."""
    collected: WeightGradients | None = getattr(_active, "now", None)
    if collected is None or not (torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf):
        return None
    if _active.hooks is not _saving_hooks():  # in a checkpoint of others, which runs again without this
        return None
    enough = WORTH_DEFERRING.get(weight.device.type, WORTH_DEFERRING["cuda"])
    return collected if weight.numel() >= enough else None


def recomputable(run: Callable) -> Callable:
    """`run`, to be called now and once more in the backward pass, where the same gradients are collected."""
    collected = getattr(_active, "now", None)
    return run if collected is None else partial(_run_within, collected, run)


def _run_within(collected: WeightGradients, run: Callable, *args: Any, **kwargs: Any) -> Any:
    with _collecting(collected):
        return run(*args, **kwargs)


@contextmanager
def _collecting(collected: WeightGradients) -> Iterator[None]:
    before = getattr(_active, "now", None), getattr(_active, "hooks", None)
    _active.now, _active.hooks = collected, _saving_hooks()
    try:
        yield
    finally:
        _active.now, _active.hooks = before


def _saving_hooks() -> Any:
    """What saves tensors for the backward pass at the moment; None is autograd itself."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if hooks is None else hooks[0]


class WeightGradients:
    """What the gradients of weights are made of, by weight."""

    def __init__(self) -> None:
        self._shares: dict[tuple, tuple[_Shares, torch.Tensor]] = {}

    def linear(
        self, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, transposed: bool
    ) -> torch.Tensor:
        """As `linear_maps.linear`."""
        device, dtype = inputs.device.type, inputs.dtype
        if torch.is_autocast_enabled(device) and dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device)
        shares, edge = self._of(weight, bias, dtype, transposed)
        return _Linear.apply(inputs.to(dtype), edge, shares)

    def lookup(self, ids: torch.Tensor, weight: torch.Tensor, padding_idx: int | None) -> torch.Tensor:
        """Rows `[..., hidden]` of `weight` `[vocabulary, hidden]`; those of `padding_idx` get no gradient."""
        shares, edge = self._of(weight, None, weight.dtype, False)
        return _Lookup.apply(ids, edge, shares, -1 if padding_idx is None else padding_idx)

    def _of(
        self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, transposed: bool
    ) -> tuple[_Shares, torch.Tensor]:
        key = (id(weight), id(bias), dtype, transposed)
        if key not in self._shares:
            # Made at the first use: autograd runs what was made last first, and so multiplies the shares of a
            # weight as soon as its first use has left its own.
            shares = _Shares(weight, bias, dtype, transposed)
            self._shares[key] = (shares, _Total.apply(weight, bias, shares))
        return self._shares[key]


class _Shares:
    """What the gradient of one weight, and that of its bias, is made of.

    Args:
        weight: `[out, in]`, or `[in, out]` where it is `transposed`.
        bias: `[out]` or None.
        dtype: that the products are computed in.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, transposed: bool):
        self.parameters = weight, bias  # kept, so that no other tensors get their ids
        self.transposed = transposed
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._task = -1
        self._clear()

    def _clear(self) -> None:
        self._inputs: list[torch.Tensor] = []
        self._outputs: list[torch.Tensor] = []
        self._ids: list[torch.Tensor] = []
        self._looked_up: list[torch.Tensor] = []
        self._rows = 0
        self._weight: torch.Tensor | None = None
        self._bias: torch.Tensor | None = None

    def _begin(self) -> None:
        """What an earlier backward pass left that did not ask for this weight's gradient is not ours."""
        task = torch._C._current_graph_task_id()
        if task < self._task:
            raise RuntimeError(
                "another backward pass ran through this graph in the middle of one: inside of "
                "`deferred_weight_gradients` backward passes have to follow one another"
            )
        if task > self._task:
            self._task = task
            self._clear()

    def add(self, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """A use of a linear map: inputs `[..., in]` and the gradient of its outputs `[..., out]`."""
        self._begin()
        # Detached: with their graph they would lead back to here, and nothing would ever free them.
        self._inputs.append(inputs.detach().reshape(-1, inputs.shape[-1]))
        self._outputs.append(outputs.detach().reshape(-1, outputs.shape[-1]))
        self._rows += self._inputs[-1].shape[0]
        if self._rows >= ROWS_AT_ONCE:
            self._multiply()

    def add_rows(self, ids: torch.Tensor, rows: torch.Tensor, padding_idx: int) -> None:
        """A use of an embedding: ids `[...]` and the gradient of their rows `[..., hidden]`."""
        self._begin()
        rows = rows.detach()
        if padding_idx >= 0:
            rows = torch.where((ids != padding_idx).unsqueeze(-1), rows, 0)
        self._ids.append(ids.flatten())
        self._looked_up.append(rows.reshape(-1, rows.shape[-1]))

    def _multiply(self) -> None:
        inputs, outputs = _together(self._inputs), _together(self._outputs)
        left, right = (inputs, outputs) if self.transposed else (outputs, inputs)
        with torch.autocast(left.device.type, enabled=False):
            self._weight = add_product(self._weight, left, right)
        if self.bias is not None:
            total = outputs.sum(dim=0)
            self._bias = total if self._bias is None else self._bias + total
        self._inputs, self._outputs, self._rows = [], [], 0

    def total(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The gradients of weight and bias, which are not kept."""
        self._begin()
        if self._inputs:
            self._multiply()
        if self._ids:
            self._add_looked_up(_together(self._ids), _together(self._looked_up))
        weight, bias = self._weight, self._bias
        self._clear()
        return weight, bias

    def _add_looked_up(self, ids: torch.Tensor, rows: torch.Tensor) -> None:
        if self._weight is not None and ids.device.type == "cpu":
            self._weight.index_add_(0, ids, rows)
            return
        # Elsewhere the order of `index_add_` is left to chance.
        found = torch.ops.aten.embedding_dense_backward(rows, ids, self.weight.shape[0], -1, False)
        self._weight = found if self._weight is None else self._weight.add_(found)


def _together(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Total(Function):
    """Where the shares of a weight come together; its output is nothing but an edge of the graph to here."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, bias: torch.Tensor | None, shares: _Shares) -> torch.Tensor:
        ctx.set_materialize_grads(False)
        ctx.shares, ctx.dtypes = shares, (weight.dtype, None if bias is None else bias.dtype)
        return weight.new_empty(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *nothing: None) -> tuple:
        weight, bias = ctx.shares.total()
        (weight_dtype, bias_dtype), (_, bias_wanted, _) = ctx.dtypes, ctx.needs_input_grad
        return (
            None if weight is None else weight.to(weight_dtype),
            bias.to(bias_dtype) if bias is not None and bias_wanted else None,
            None,
        )


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, edge: torch.Tensor, shares: _Shares) -> torch.Tensor:
        weight = shares.weight
        ctx.save_for_backward(inputs, weight)
        ctx.shares = shares
        return product(inputs, weight.t() if shares.transposed else weight, shares.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        inputs, weight = ctx.saved_tensors
        ctx.shares.add(inputs, gradient)
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return product(gradient, weight if ctx.shares.transposed else weight.t()), None, None


class _Lookup(Function):
    @staticmethod
    def forward(
        ctx: Any, ids: torch.Tensor, edge: torch.Tensor, shares: _Shares, padding_idx: int
    ) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.shares, ctx.padding_idx = shares, padding_idx
        return F.embedding(ids, shares.weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        (ids,) = ctx.saved_tensors
        ctx.shares.add_rows(ids, gradient, ctx.padding_idx)
        return None, None, None, None


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
