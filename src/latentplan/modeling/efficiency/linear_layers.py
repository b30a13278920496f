"""Linear layers and embeddings with a faster matmul and with deferred weight gradients.

A chain of latents is a sequence of passes over one column each. Autograd computes the gradient of every
weight in every pass and adds these up: for a few rows, memory of the model's size is written and read
several times in each pass, for few multiplications. Under `deferred_weight_gradients` each pass keeps only
the factors of the weight gradient, its inputs and the gradient of its outputs, and one matmul over all
passes computes the sum in the end. The sum is the same, and the gradients of activations are computed as
usual.

`install` replaces the `forward` of each layer in a model of transformers; names, weights and classes of the
layers stay the same.
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

from latentplan.modeling.efficiency.matmul import add_matmul, matmul, uses_onednn

ROWS_AT_ONCE = 1024
"""Rows that are multiplied as soon as there are so many; more would not make a matmul faster."""
WORTH_DEFERRING = {"cpu": 2**18, "cuda": 2**22}
"""Elements of a weight, by device, below which autograd's sum is cheaper than deferring the gradient.

The number for CPUs was measured. That for GPUs follows from moving 2^22 elements four times in bfloat16, 10
µs on an H100 by its data sheet, which is about the assumed cost of our Python code in a pass.
"""

_active = threading.local()


@contextmanager
def deferred_weight_gradients(module: nn.Module) -> Iterator[None]:
    """Defers the weight gradients of linear layers and embeddings that are used within this context.

    This does nothing where gradients are disabled, and where the weights are sharded (FSDP2, ZeRO-3), since
    these engines need the gradients of a layer when its backward pass ends.

    Args:
        module: the model that is used within the context.
    """
    if not torch.is_grad_enabled() or has_sharded_weights(module):
        yield
        return
    with _collect_into(WeightGradients()):
        yield


def has_sharded_weights(module: nn.Module) -> bool:
    """Says whether FSDP2 or DeepSpeed ZeRO-3 shards weights, so that each use gathers them anew."""
    return any(hasattr(each, "unshard") for each in module.modules()) or any(
        hasattr(weight, "ds_id") for weight in module.parameters()
    )


def collector_of(weight: torch.Tensor) -> WeightGradients | None:
    """Returns the collector of a weight's gradient at the moment; None where autograd computes it."""
    collector: WeightGradients | None = getattr(_active, "now", None)
    if collector is None or not (torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf):
        return None
    if _active.hooks is not _saving_hooks():  # under another checkpointing, which recomputes without this
        return None
    enough = WORTH_DEFERRING.get(weight.device.type, WORTH_DEFERRING["cuda"])
    return collector if weight.numel() >= enough else None


def checkpointable(run: Callable) -> Callable:
    """Returns `run` for gradient checkpointing: recomputation collects gradients as the first call does."""
    collector = getattr(_active, "now", None)
    return run if collector is None else partial(_run_within, collector, run)


def _run_within(collector: WeightGradients, run: Callable, *args: Any, **kwargs: Any) -> Any:
    with _collect_into(collector):
        return run(*args, **kwargs)


@contextmanager
def _collect_into(collector: WeightGradients) -> Iterator[None]:
    before = getattr(_active, "now", None), getattr(_active, "hooks", None)
    _active.now, _active.hooks = collector, _saving_hooks()
    try:
        yield
    finally:
        _active.now, _active.hooks = before


def _saving_hooks() -> Any:
    """Returns the hook that saves tensors for the backward pass now; None for autograd itself."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if hooks is None else hooks[0]


class WeightGradients:
    """The collected factors of weight gradients, by weight."""

    def __init__(self) -> None:
        self._factors: dict[tuple, tuple[_GradientFactors, torch.Tensor]] = {}

    def linear(
        self, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, transposed: bool
    ) -> torch.Tensor:
        """Computes what `linear` does; the weight's gradient is deferred."""
        device, dtype = inputs.device.type, inputs.dtype
        if torch.is_autocast_enabled(device) and dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device)
        factors, edge = self._of(weight, bias, dtype, transposed)
        return _Linear.apply(inputs.to(dtype), edge, factors)

    def lookup(self, ids: torch.Tensor, weight: torch.Tensor, padding_idx: int | None) -> torch.Tensor:
        """Looks up ids `[...]` in `weight`: `[..., hidden]`; the gradient of `padding_idx` is 0."""
        factors, edge = self._of(weight, None, weight.dtype, False)
        return _Lookup.apply(ids, edge, factors, -1 if padding_idx is None else padding_idx)

    def _of(
        self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, transposed: bool
    ) -> tuple[_GradientFactors, torch.Tensor]:
        key = (id(weight), id(bias), dtype, transposed)
        if key not in self._factors:
            # Made at the first use: autograd runs the latest node first, so it computes the gradient of a
            # weight right after the backward pass of the weight's first use.
            factors = _GradientFactors(weight, bias, dtype, transposed)
            self._factors[key] = (factors, _Total.apply(weight, bias, factors))
        return self._factors[key]


class _GradientFactors:
    """The factors of the gradients of one weight and of its bias.

    Args:
        weight: `[out, in]`, or `[in, out]` where it is `transposed`.
        bias: `[out]` or None.
        dtype: of the matmuls.
        transposed: whether the weight is `[in, out]`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, transposed: bool):
        self.parameters = weight, bias  # a reference, so that no other tensors get their ids
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
        """Drops factors of an earlier backward pass that did not compute this weight's gradient."""
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
        """Adds a use of a linear layer: inputs `[..., in]` and the gradient of its outputs `[..., out]`."""
        self._begin()
        # Detached: their graph would lead back to here, a reference cycle that is never freed.
        self._inputs.append(inputs.detach().reshape(-1, inputs.shape[-1]))
        self._outputs.append(outputs.detach().reshape(-1, outputs.shape[-1]))
        self._rows += self._inputs[-1].shape[0]
        if self._rows >= ROWS_AT_ONCE:
            self._multiply()

    def add_rows(self, ids: torch.Tensor, rows: torch.Tensor, padding_idx: int) -> None:
        """Adds one use of an embedding: ids `[...]` and the gradient of their rows `[..., hidden]`."""
        self._begin()
        rows = rows.detach()
        if padding_idx >= 0:
            rows = torch.where((ids != padding_idx).unsqueeze(-1), rows, 0)
        self._ids.append(ids.flatten())
        self._looked_up.append(rows.reshape(-1, rows.shape[-1]))

    def _multiply(self) -> None:
        inputs, outputs = _concatenated(self._inputs), _concatenated(self._outputs)
        left, right = (inputs, outputs) if self.transposed else (outputs, inputs)
        with torch.autocast(left.device.type, enabled=False):
            self._weight = add_matmul(self._weight, left, right)
        if self.bias is not None:
            total = outputs.sum(dim=0)
            self._bias = total if self._bias is None else self._bias + total
        self._inputs, self._outputs, self._rows = [], [], 0

    def total(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Computes the gradients of weight and bias, and forgets their factors."""
        self._begin()
        if self._inputs:
            self._multiply()
        if self._ids:
            self._add_looked_up(_concatenated(self._ids), _concatenated(self._looked_up))
        weight, bias = self._weight, self._bias
        self._clear()
        return weight, bias

    def _add_looked_up(self, ids: torch.Tensor, rows: torch.Tensor) -> None:
        if self._weight is not None and ids.device.type == "cpu":
            self._weight.index_add_(0, ids, rows)
            return
        # On other devices `index_add_` is not deterministic.
        found = torch.ops.aten.embedding_dense_backward(rows, ids, self.weight.shape[0], -1, False)
        self._weight = found if self._weight is None else self._weight.add_(found)


def _concatenated(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Total(Function):
    """The node at which a weight's gradient is computed; its output is only an edge of the graph to here."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, bias: torch.Tensor | None, factors: _GradientFactors
    ) -> torch.Tensor:
        ctx.set_materialize_grads(False)
        ctx.factors, ctx.dtypes = factors, (weight.dtype, None if bias is None else bias.dtype)
        return weight.new_empty(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *nothing: None) -> tuple:
        weight, bias = ctx.factors.total()
        (weight_dtype, bias_dtype), (_, bias_wanted, _) = ctx.dtypes, ctx.needs_input_grad
        return (
            None if weight is None else weight.to(weight_dtype),
            bias.to(bias_dtype) if bias is not None and bias_wanted else None,
            None,
        )


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, edge: torch.Tensor, factors: _GradientFactors
    ) -> torch.Tensor:
        weight = factors.weight
        ctx.save_for_backward(inputs, weight)
        ctx.factors = factors
        return matmul(inputs, weight.t() if factors.transposed else weight, factors.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        inputs, weight = ctx.saved_tensors
        ctx.factors.add(inputs, gradient)
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return matmul(gradient, weight if ctx.factors.transposed else weight.t()), None, None


class _Lookup(Function):
    @staticmethod
    def forward(
        ctx: Any, ids: torch.Tensor, edge: torch.Tensor, factors: _GradientFactors, padding_idx: int
    ) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.factors, ctx.padding_idx = factors, padding_idx
        return F.embedding(ids, factors.weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        (ids,) = ctx.saved_tensors
        ctx.factors.add_rows(ids, gradient, ctx.padding_idx)
        return None, None, None, None


def install(model: nn.Module) -> None:
    """Makes the linear layers and embeddings of `model` compute as `linear` and `WeightGradients.lookup` do.

    Layers of other classes, such as quantised ones, and layers whose `forward` was replaced before are
    unchanged.
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
    """A replacement of a layer's `forward`, which holds a weak reference to the layer."""

    def __init__(self, layer: Any):
        self._layer = weakref.ref(layer)

    @property
    def layer(self) -> Any:
        """The layer whose `forward` this is."""
        return self._layer()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Forward:
        return type(self)(memo.get(id(self.layer), self.layer))

    def __reduce__(self) -> tuple:
        return type(self), (self.layer,)


class LinearMap(_Forward):
    """The `forward` of a linear layer."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        self.transposed = type(layer) is Conv1D

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """Maps inputs `[..., in]` to `[..., out]`."""
        layer = self.layer
        return linear(input, layer.weight, layer.bias, self.transposed)


class Lookup(_Forward):
    """The `forward` of an embedding."""

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """Maps ids `[...]` to rows `[..., hidden]`."""
        layer = self.layer
        collector = collector_of(layer.weight)
        if collector is not None:
            return collector.lookup(input, layer.weight, layer.padding_idx)
        return F.embedding(input, layer.weight, layer.padding_idx)


def linear(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, transposed: bool = False
) -> torch.Tensor:
    """Computes `torch.nn.functional.linear`, with gradients: `[..., out]`.

    Args:
        inputs: `[..., in]`.
        weight: `[out, in]`, or `[in, out]` where it is `transposed` (GPT-2's).
        bias: `[out]` or None.
        transposed: whether the weight is `[in, out]`.
    """
    collector = collector_of(weight)
    if collector is not None and (
        inputs.dtype == weight.dtype or torch.is_autocast_enabled(inputs.device.type)
    ):
        return collector.linear(inputs, weight, bias, transposed)
    outwards = weight.t() if transposed else weight
    if hasattr(weight, "ds_id") or not uses_onednn(inputs, outwards):  # ZeRO-3 frees weights after use
        return F.linear(inputs, outwards, bias)
    if not torch.is_grad_enabled():
        return matmul(inputs, outwards, bias)
    return _Matmul.apply(inputs, weight, bias, transposed)


class _Matmul(Function):
    """A matmul by oneDNN, whose gradients are computed in its own backward pass."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, transposed: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.transposed = transposed
        return matmul(inputs, weight.t() if transposed else weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        inputs, weight = ctx.saved_tensors
        to_inputs, to_weight, to_bias, _ = ctx.needs_input_grad
        rows = inputs.reshape(-1, inputs.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        left, right = rows if ctx.transposed else reversed(rows)
        return (
            matmul(gradient, weight if ctx.transposed else weight.t()) if to_inputs else None,
            add_matmul(None, left, right) if to_weight else None,
            rows[1].sum(dim=0) if to_bias else None,
            None,
        )
