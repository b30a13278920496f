"""Learning rates of their own for parts of a model, in one optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from latentplan.training.trainable_model import LatentModelForTraining


def give_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], rate: float) -> None:
    """Moves parameters into groups with the learning rate `rate`, all else as in the groups they leave."""
    mine = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        moved = [each for each in group["params"] if id(each) in mine]
        if moved:
            group["params"] = [each for each in group["params"] if id(each) not in mine]
            optimizer.add_param_group({**group, "lr": rate, "params": moved})
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]


def trained_parts(system: LatentModelForTraining) -> dict[str, nn.Module]:
    """The parts of a system that are trained, by name: of `backbone`, the heads and `step_decoder`."""
    parts = _parts(system).items()
    return {name: part for name, part in parts if any(each.requires_grad for each in part.parameters())}


def _parts(system: LatentModelForTraining) -> dict[str, nn.Module]:
    reasoner = system.reasoner
    parts = {name: getattr(reasoner, name, None) for name in ("backbone", "latent_head", "stop_head")}
    parts["step_decoder"] = system.step_decoder
    return {name: part for name, part in parts.items() if part is not None}


def freeze_parts(system: LatentModelForTraining, factors: Mapping[str, float]) -> None:
    """Takes the parts with factor 0 out of training for good: no gradient of theirs is computed any more.

    Raises:
        ValueError: `learning_rate_factors` names a part that is not there, gives a rate to one that is not
            trained, has something that is no number from 0 on, or leaves nothing to train.
    """
    parts, trained = _parts(system), trained_parts(system)
    for name, factor in factors.items():
        if name not in parts:
            raise ValueError(f"learning_rate_factors must be among {', '.join(parts)}, got {name!r}")
        if not isinstance(factor, int | float) or not 0 <= factor < math.inf:
            raise ValueError(f"learning_rate_factors: {name} needs a number from 0 on, got {factor!r}")
        if factor and name not in trained:
            raise ValueError(f"learning_rate_factors: {name} is not trained in this run, it can only have 0")
    frozen = [name for name, factor in factors.items() if factor == 0]
    if frozen and not set(trained) - set(frozen):
        raise ValueError("learning_rate_factors is 0 for every part, so that there is nothing to train")
    for name in frozen:
        parts[name].requires_grad_(False)


def give_factors(
    optimizer: torch.optim.Optimizer,
    system: LatentModelForTraining,
    factors: Mapping[str, float],
    rate: float,
) -> None:
    """Gives each named part of the system that is trained `rate` times its factor."""
    parts = trained_parts(system)
    for name, factor in factors.items():
        if name in parts:
            give_rate(optimizer, parts[name].parameters(), rate * factor)


def check_loss(loss: torch.Tensor) -> None:
    """Raises ValueError where gradients are wanted and nothing that is trained has a part in the loss."""
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise ValueError(
            "the loss depends on nothing that is trained: see learning_rate_factors and freeze_backbone, or "
            "change the objectives or latent_gradient"
        )


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: max(0.0, 1 - progress),
    "cosine": _cosine,
}


def decay(name: str, progress: float) -> float:
    """The factor on the learning rate at `progress` from 0 to 1 of the decay called `name`.

    Raises ValueError for a name that does not exist.
    """
    name = name.rsplit(".", 1)[-1].lower()
    if name not in DECAYS:
        raise ValueError(f"lr_scheduler_type must be one of {sorted(DECAYS)}, got {name!r}")
    return DECAYS[name](progress)
