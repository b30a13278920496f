"""The weights of a system in bytes, with gradients and optimizer, and how devices share them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from latentplan.methods.system import LatentSystem
from latentplan.modeling.efficiency.gradient_checkpointing import decoder_layers


@dataclass(frozen=True)
class Weights:
    """Parameters and their bytes on one unsharded device.

    Attributes:
        parameters: numbers of parameters by part.
        trained: how many of them are trained.
        weights, gradients, optimizer: bytes; AdamW keeps two moments of each trained weight.
        unit: bytes of the largest group of weights that a sharded run gathers at once.
    """

    parameters: dict[str, int]
    trained: int
    weights: int
    gradients: int
    optimizer: int
    unit: int


def weigh(system: LatentSystem) -> Weights:
    """The parameters of a system as they are set to be trained; works on real and on fake tensors."""
    reasoner = system.reasoner
    heads = [part for part in (reasoner.latent_head, reasoner.stop_head) if part is not None]
    adapters = [value for name, value in system.named_parameters() if "lora_" in name]
    backbone = [value for name, value in reasoner.backbone.named_parameters() if "lora_" not in name]
    decoder = system.step_decoder
    trained = [value for value in system.parameters() if value.requires_grad]
    return Weights(
        parameters={
            "backbone": _count(backbone),
            "heads": sum(_count(head.parameters()) for head in heads),
            "step decoder": 0 if decoder is None else _without_adapters(decoder),
            "adapters": _count(adapters),
        },
        trained=_count(trained),
        weights=size_of(system.parameters()),
        gradients=size_of(trained),
        optimizer=2 * size_of(trained),
        unit=_largest_unit(system),
    )


def _without_adapters(module: nn.Module) -> int:
    return _count(value for name, value in module.named_parameters() if "lora_" not in name)


def _largest_unit(system: LatentSystem) -> int:
    """Two layers (one is fetched ahead) and what lies outside of layers, which stays gathered."""
    parts = [system.reasoner.backbone, *([system.step_decoder.backbone] if system.step_decoder else [])]
    layers = [size_of(layer.parameters()) for part in parts for layer in decoder_layers(part)]
    return 2 * max(layers, default=0) + size_of(system.parameters()) - sum(layers)


def _count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(each.numel() for each in parameters)


def size_of(parameters: Iterable[torch.Tensor]) -> int:
    """Bytes of tensors."""
    return sum(each.numel() * each.element_size() for each in parameters)


Parts = dict[str, float]


def _replicated(weights: Weights, devices: int) -> Parts:
    """DDP: everything on every device, and buckets that gradients are exchanged in."""
    buckets = {"gradient buckets": float(weights.gradients)} if devices > 1 else {}
    whole = {"weights": weights.weights, "gradients": weights.gradients, "optimizer": weights.optimizer}
    return {**whole, **buckets}


def _sharded_states(weights: Weights, devices: int) -> Parts:
    """DeepSpeed ZeRO-2: whole weights, a share of gradients and optimizer."""
    return {
        "weights": weights.weights,
        "gradients": weights.gradients / devices,
        "optimizer": weights.optimizer / devices,
    }


def _sharded(weights: Weights, devices: int) -> Parts:
    """FSDP2 and ZeRO-3: a share of everything, and the layers that are gathered at the time."""
    parts = {"weights": weights.weights, "gradients": weights.gradients, "optimizer": weights.optimizer}
    gathered = {"gathered weights": float(weights.unit)} if devices > 1 else {}
    return {**{name: value / devices for name, value in parts.items()}, **gathered}


SHARDING: dict[str, Callable[[Weights, int], Parts]] = {
    "ddp": _replicated,
    "fsdp": _sharded,
    "zero2": _sharded_states,
    "zero3": _sharded,
}
"""How weights, gradients and optimizer are spread over devices, by name."""
GATHERED_FOR_ROLLOUTS = ("fsdp", "zero3")
"""Where no device holds all weights, so that they are gathered once a rollout (`sharding.whole_weights`)."""
