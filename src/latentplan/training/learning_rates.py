"""Learning rates of their own for parts of a model, in one optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from latentplan.methods.system import LatentSystem


def give_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], rate: float) -> None:
    """Moves parameters into groups with the learning rate `rate`, all else as in the groups they leave."""
    mine = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        moved = [each for each in group["params"] if id(each) in mine]
        if moved:
            group["params"] = [each for each in group["params"] if id(each) not in mine]
            optimizer.add_param_group({**group, "lr": rate, "params": moved})
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]


def trained_parts(system: LatentSystem) -> dict[str, nn.Module]:
    """The parts of a system that are trained, by name: of `backbone`, the heads and `step_decoder`."""
    reasoner = system.reasoner
    parts = {name: getattr(reasoner, name, None) for name in ("backbone", "latent_head", "stop_head")}
    parts["step_decoder"] = system.step_decoder
    return {name: part for name, part in parts.items() if part is not None and _is_trained(part)}


def _is_trained(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def freeze_parts(system: LatentSystem, factors: Mapping[str, float]) -> None:
    """Takes the parts with factor 0 out of training, so that no gradient of theirs is computed.

    Raises:
        ValueError: `learning_rate_factors` names a part that is not trained, has something that is no
            number from 0 on, or leaves nothing to train.
    """
    parts = trained_parts(system)
    for name, factor in factors.items():
        if name not in parts:
            raise ValueError(f"learning_rate_factors must be among {', '.join(parts)}, got {name!r}")
        if not isinstance(factor, int | float) or factor < 0:
            raise ValueError(f"learning_rate_factors: {name} needs a number from 0 on, got {factor!r}")
    for name, factor in factors.items():
        if factor == 0:
            parts[name].requires_grad_(False)
    if not _is_trained(system):
        raise ValueError("learning_rate_factors is 0 for every part, so that there is nothing to train")


def give_factors(
    optimizer: torch.optim.Optimizer, system: LatentSystem, factors: Mapping[str, float], rate: float
) -> None:
    """Gives each named part of the system that is trained `rate` times its factor."""
    parts = trained_parts(system)
    for name, factor in factors.items():
        if name in parts:
            give_rate(optimizer, parts[name].parameters(), rate * factor)
