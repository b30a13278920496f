"""The tensors of a checkpoint, read from the headers of its safetensors before memory is allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.modules import module as nn_module
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from latentplan.modeling.folders.damage import DamagedModelError, blamed_on, read_json

_FLOATS = {"F64", "F32", "F16", "BF16"}
_SPARE_NUMBERS, _SPARE_PARTS = 1_000_000, 2_000
"""Allowed in addition to a multiple of the stored numbers: tied weights and some buffers are not stored."""


@dataclass(frozen=True)
class StoredWeights:
    """Sizes of the tensors of a checkpoint.

    Attributes:
        file: that holds them, or the index of the files.
        shapes: by name.
    """

    file: Path
    shapes: dict[str, tuple[int, ...]]

    @property
    def numbers(self) -> int:
        """The number of elements of all tensors together."""
        return sum(map(prod, self.shapes.values()))


def stored_weights(folder: Path) -> StoredWeights:
    """Lists the tensors of a folder: of `model.safetensors`, or of the shards in its index.

    Raises:
        DamagedModelError: a file is missing or cut off, or a tensor is not of floating-point numbers.
    """
    single, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    if single.is_file():
        return StoredWeights(single, _shapes(single))
    if not index.is_file():
        other = sorted(path.name for path in folder.glob("*.bin"))
        seen = (
            f"there is {other[0]}, whose format can hold code and is not read" if other else "it is missing"
        )
        raise DamagedModelError(single, seen)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in _shards(index):
        shapes.update(_shapes(folder / name))
    return StoredWeights(index, shapes)


def _shards(index: Path) -> list[str]:
    """Lists the files that an index names; their tensors are checked when they are loaded."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise DamagedModelError(index, "it lists no weights (weight_map)")
    for tensor, name in listed.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise DamagedModelError(index, f"it says that {tensor} is in {name!r}, which is no shard's name")
    return sorted(set(listed.values()))


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    if not file.is_file():
        raise DamagedModelError(file, "it is missing")
    shapes = {}
    with blamed_on(file, "it is damaged or was cut off"), safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 (safe_open is no mapping)
            part = opened.get_slice(name)
            shapes[name] = tuple(part.get_shape())
            if part.get_dtype() not in _FLOATS:
                raise DamagedModelError(file, f"{name} holds {part.get_dtype()}, which are no weights")
    return shapes


def check_size(build: Callable[[], nn.Module], stored: StoredWeights, config_file: Path) -> None:
    """Builds a model without memory, and refuses one that is far larger than its stored weights.

    Without this check a number in a configuration could cost any amount of memory or time.

    Args:
        build: makes the model.
        stored: its weights.
        config_file: that describes it.

    Raises:
        DamagedModelError: it is too large, or cannot be built.
    """
    describes = "it describes a model that cannot be built"
    with blamed_on(config_file, describes), torch.device("meta"), _at_most(stored, config_file):
        build()


@contextmanager
def _at_most(stored: StoredWeights, config_file: Path) -> Iterator[None]:
    """Stops the construction of modules that are far larger than the stored weights."""
    numbers = 4 * stored.numbers + _SPARE_NUMBERS
    parts = 16 * len(stored.shapes) + _SPARE_PARTS  # modules, parameters and buffers
    seen = [0, 0]

    def count(module: nn.Module, name: str, value: Any) -> None:
        seen[0] += value.numel() if isinstance(value, torch.Tensor) else 0
        seen[1] += 1
        if seen[0] > numbers or seen[1] > parts:
            raise DamagedModelError(
                config_file,
                f"it describes a model that is larger than its weights: {stored.file.name} holds "
                f"{len(stored.shapes)} tensors with {stored.numbers:,} numbers",
            )

    hooks = [
        nn_module.register_module_parameter_registration_hook(count),
        nn_module.register_module_buffer_registration_hook(count),
        nn_module.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
