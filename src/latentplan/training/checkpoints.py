"""Checkpoints that are whole or not there: a manifest of every file, and strict loading.

A checkpoint is written under a temporary name, listed in `manifest.json` with sizes and SHA-256, flushed to
the disk and renamed. One that was damaged later (a full disk, a copy that broke off) is told by its manifest,
and the last whole one before it is used.

An optimizer's state as safetensors, by parameter name: the same file whatever the number of devices.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from latentplan.common.files import write_atomically
from latentplan.common.run_files import CHECKPOINTS
from latentplan.modeling.saving import CheckpointMismatchError, mismatches
from latentplan.training.distributed import whole_tensor
from latentplan.training.trainable_model import STEP_DECODER_FOLDER, VALUE_HEAD_FOLDER

logger = logging.getLogger(__name__)
STAGING = ".checkpoint-in-progress"
REHEARSAL = ".rehearsal"
"""Where a model is written and loaded once before training."""
MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def write_manifest(folder: Path) -> None:
    """Lists every file of `folder` with its size and SHA-256, and flushes them to the disk."""
    listed = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file() and each.name != MANIFEST):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            listed[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": digest}
    write_atomically(folder / MANIFEST, json.dumps(listed, indent=1) + "\n")


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None where every file is as it was written."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except ValueError:
        return f"its {MANIFEST} cannot be read"
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                return f"{name} is not what was written"
    return None


def last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The newest whole checkpoint of a run, or None; says which damaged ones it passes over."""
    found = {}
    for path in Path(output_dir).glob(CHECKPOINTS):
        name = _NAME.fullmatch(path.name)
        if name and path.is_dir():
            found[int(name[1])] = path
    for step in sorted(found, reverse=True):
        reason = damage(found[step])
        if reason is None:
            return str(found[step])
        logger.warning("%s is damaged (%s): going on from the one before it", found[step], reason)
    return None


def remove_unfinished(output_dir: str | os.PathLike) -> None:
    """Removes what a killed run left half-written."""
    for name in (STAGING, REHEARSAL):
        shutil.rmtree(Path(output_dir) / name, ignore_errors=True)


def read_weights(folder: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Returns all weights that `LatentModelForTraining.save_pretrained` wrote, under the model's own names.

    Raises:
        CheckpointMismatchError: there are none.
    """
    folder = Path(folder)
    parts = {
        "reasoner": folder,
        "step_decoder": folder / STEP_DECODER_FOLDER,
        "value_head": folder / VALUE_HEAD_FOLDER,
    }
    weights: dict[str, torch.Tensor] = {}
    for part, place in parts.items():
        for file in sorted(place.glob("*.safetensors")):
            if file.name.startswith("model"):
                weights.update({f"{part}.{name}": value for name, value in load_file(file).items()})
    if not weights:
        raise CheckpointMismatchError(f"{folder} holds no model*.safetensors")
    return weights


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Puts `weights` into `model`, which may be sharded; every tensor of the one must be in the other.

    Raises:
        CheckpointMismatchError: tensors are missing, unexpected or of another shape; the message names them.
    """
    state: dict[str, Any] = dict(weights)
    for names in _shared(model):
        known = next((state[name] for name in names if name in state), None)
        if known is not None:
            state.update(dict.fromkeys(names, known))
    expected = model.state_dict()
    shapes = [
        f"{name} {list(state[name].shape)}, expected {list(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    found = mismatches(expected.keys() - state.keys(), state.keys() - expected.keys(), shapes)
    if found:
        raise CheckpointMismatchError(f"{source} does not fit the model that is being trained ({found})")
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True))


def _shared(model: nn.Module) -> list[list[str]]:
    """The names of parameters that are one tensor under several names, such as tied embeddings."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


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


class KnownBest(TrainerCallback):
    """Finds the best checkpoint again when a run goes on, also if its folder has been moved."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forgets the best checkpoint if it is gone or damaged: the run could not end with it."""
        best = best_checkpoint(args.output_dir, state.best_global_step)
        reason = None if best is None else damage(Path(best))
        if reason is not None:
            logger.warning(
                "%s was the best and is damaged (%s): the best of the others is taken", best, reason
            )
            best = None
        state.best_model_checkpoint = best
        if best is None:
            state.best_global_step = state.best_metric = None


def best_checkpoint(output_dir: Any, step: int | None) -> str | None:
    """The checkpoint of a step, if there is one."""
    folder = Path(str(output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    return str(folder) if step is not None and folder.is_dir() else None
