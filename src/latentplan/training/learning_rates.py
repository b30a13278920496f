"""Learning rates of their own for parts of a model, in one optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from latentplan.modeling.reasoner import LatentReasoner

PARTS = ("backbone", "latent_head", "stop_head")


def give_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], rate: float) -> None:
    """Moves parameters into groups with the learning rate `rate`, all else as in the groups they leave."""
    mine = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        moved = [each for each in group["params"] if id(each) in mine]
        if moved:
            group["params"] = [each for each in group["params"] if id(each) not in mine]
            optimizer.add_param_group({**group, "lr": rate, "params": moved})
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]


def check_factors(reasoner: LatentReasoner, factors: Mapping[str, float]) -> None:
    """Raises ValueError where `learning_rate_factors` names a part that the model has not, or no number."""
    parts = [name for name in PARTS if getattr(reasoner, name, None) is not None]
    for name, factor in factors.items():
        if name not in parts:
            raise ValueError(f"learning_rate_factors must be among {', '.join(parts)}, got {name!r}")
        if not isinstance(factor, int | float) or factor < 0:
            raise ValueError(f"learning_rate_factors: {name} needs a number from 0 on, got {factor!r}")


def give_factors(
    optimizer: torch.optim.Optimizer, reasoner: LatentReasoner, factors: Mapping[str, float], rate: float
) -> None:
    """Gives each named part of the reasoner `rate` times its factor; a part with factor 0 stays as it is."""
    for name, factor in factors.items():
        give_rate(optimizer, getattr(reasoner, name).parameters(), rate * factor)
