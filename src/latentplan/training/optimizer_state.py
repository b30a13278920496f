"""An optimizer's state as safetensors, by parameter name: the same file whatever the number of devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from latentplan.training.sharding import whole_tensor

OPTIMIZER_FILE = "optimizer.safetensors"


def save_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, folder: Path, writes: bool) -> None:
    """Writes the state of `optimizer` over the parameters of `model` to `folder`.

    Every process of a sharded run takes part in gathering; only one that `writes` keeps the result.
    """
    names = _names(optimizer, model)
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                whole = whole_tensor(value)
                if writes:
                    tensors[f"{names[index]}/{key}"] = whole.cpu().contiguous()
            else:
                numbers[f"{names[index]}/{key}"] = value
    if writes:
        groups = [
            {**group, "params": [names[index] for index in group["params"]]}
            for group in state["param_groups"]
        ]
        about = {"groups": json.dumps(groups), "numbers": json.dumps(numbers)}
        save_file(tensors, folder / OPTIMIZER_FILE, metadata=about)


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, folder: Path) -> None:
    """Puts what `save_optimizer` wrote back, on any number of devices.

    Raises:
        ValueError: the optimizer has other parameters.
    """
    names = _names(optimizer, model)
    index = {name: place for place, name in enumerate(names)}
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    with safe_open(folder / OPTIMIZER_FILE, framework="pt") as file:
        about = file.metadata()
        groups = json.loads(about["groups"])
        if sorted(name for group in groups for name in group["params"]) != sorted(names):
            raise ValueError(f"{folder / OPTIMIZER_FILE} is of a run that trained other parameters")
        for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            name, _, slot = key.rpartition("/")
            value = _like(file.get_tensor(key), parameters[index[name]])
            state.setdefault(index[name], {})[slot] = value
    for key, value in json.loads(about["numbers"]).items():
        name, _, slot = key.rpartition("/")
        state.setdefault(index[name], {})[slot] = value
    for group in groups:
        group["params"] = [index[name] for name in group["params"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """The name of each of the optimizer's parameters, in its order."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [known[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole tensor, sharded as its parameter is where it has the parameter's shape."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        place = parameter.device_mesh.device_type
        return distribute_tensor(value.to(place), parameter.device_mesh, parameter.placements)
    return value
