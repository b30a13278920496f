"""Norm and clipping of gradients as two steps, so that the norm can be looked at before anything changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """The 2-norm of all gradients, sharded (FSDP2) or not, as a plain scalar tensor; changes none of them."""
    norms = [
        _plain(get_total_norm([p.grad for p in group if p.grad is not None]))
        for group in _by_mesh(parameters)
    ]
    if not norms:
        return torch.zeros(())
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def clip_to(parameters: Iterable[nn.Parameter], max_norm: float, norm: torch.Tensor) -> None:
    """Scales the gradients, whose norm is `norm`, down to `max_norm`."""
    for group in _by_mesh(parameters):
        mesh = getattr(group[0].grad, "device_mesh", None)
        if mesh is not None:
            from torch.distributed.tensor import DTensor, Replicate

            clip_grads_with_norm_(group, max_norm, DTensor.from_local(norm, mesh, [Replicate()] * mesh.ndim))
        else:
            clip_grads_with_norm_(group, max_norm, norm)


def _by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[Any, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault(getattr(parameter.grad, "device_mesh", None), []).append(parameter)
    return list(groups.values())


def _plain(norm: Any) -> torch.Tensor:
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
