"""How much of a gradient is signal: whether two halves of a batch pull the policy the same way.

With independent halves the expected cosine is s / (s + n), where s is the squared norm of the expected
gradient and n the variance of a half's: 1 is all signal, 0 all noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    """Adds gradients to those in `total`, in place; those that it lacks are put there."""
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value


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
    pairs = {name: (_flat(first[name], ""), _flat(second[name], "")) for name in shared}
    for part in parts:
        if any(name.startswith(part) for loss in shared for name in first[loss]):
            pairs[part] = (
                torch.stack([_flat(first[name], part) for name in shared]).sum(dim=0),
                torch.stack([_flat(second[name], part) for name in shared]).sum(dim=0),
            )
    return {
        name: float(torch.cosine_similarity(one, other, dim=0))
        for name, (one, other) in pairs.items()
        if float(one.norm()) and float(other.norm())
    }


def _flat(gradient: Gradient, part: str) -> torch.Tensor:
    return torch.cat([value.flatten().float() for name, value in gradient.items() if name.startswith(part)])
