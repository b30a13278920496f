"""How much of a gradient is signal: whether two halves of a batch pull the policy the same way.

With independent halves the expected cosine is s / (s + n), where s is the squared norm of the expected
gradient and n the variance of a half's: 1 is all signal, 0 all noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

Gradient = dict[str, torch.Tensor]
"""Gradients by the name of the parameter."""


def gradients(losses: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, Gradient]:
    """The gradient of each loss in the parameters of `module` that are trained; 0 where it has none."""
    named = {name: each for name, each in module.named_parameters() if each.requires_grad}
    found = {}
    for loss_name, loss in losses.items():
        if not loss.requires_grad:
            continue
        parts = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        found[loss_name] = {
            name: torch.zeros_like(weight) if part is None else part
            for (name, weight), part in zip(named.items(), parts, strict=True)
        }
    return found


def add_to(total: Gradient, more: Gradient) -> None:
    """Adds gradients to those in `total`, in place and in float32; those that it lacks are put there."""
    for name, value in more.items():
        if name in total:
            total[name] += value
        else:
            total[name] = value.to(torch.float32, copy=True)


def agreement(
    first: Mapping[str, Gradient], second: Mapping[str, Gradient], parts: Sequence[str]
) -> dict[str, float]:
    """Cosines between the gradients of two halves, from -1 to 1.

    Args:
        first: the gradient of each loss, on one half.
        second: the same on the other half.
        parts: beginnings of parameters' names, such as 'latent_head', for which the sum of the losses'
            gradients is compared as well.

    Returns:
        one value for each loss (over all parameters) and each part; those with a gradient of 0 are left out.
    """
    shared = [name for name in first if name in second]
    pairs = {name: _pairs([first[name]], [second[name]], "") for name in shared}
    for part in parts:
        pairs[part] = _pairs([first[name] for name in shared], [second[name] for name in shared], f"{part}.")
    found = {name: _cosine(each) for name, each in pairs.items()}
    return {name: value for name, value in found.items() if value is not None}


def _pairs(
    first: Sequence[Gradient], second: Sequence[Gradient], beginning: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The sums over losses of both halves, one parameter after another: whole gradients would be copies."""
    for name in first[0] if first else ():
        if name.startswith(beginning):
            yield _sum(each[name] for each in first), _sum(each[name] for each in second)


def _sum(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Of tensors of one shape, in float32."""
    return torch.stack([each.float() for each in tensors]).sum(dim=0)


def _cosine(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float | None:
    """Over all parameters; None where one side is 0."""
    product = one = other = 0.0
    for first, second in pairs:
        product += float((first * second).sum())
        one, other = one + float(first.square().sum()), other + float(second.square().sum())
    return max(-1.0, min(1.0, product / math.sqrt(one * other))) if one and other else None
