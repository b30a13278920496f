"""What a run needs of a device's memory, computed before it is started.

Weights, gradients and the optimizer's state follow from the parameters exactly. Activations are those of one
micro-batch of the real code on fake tensors (`dry_run`). What is assumed: the lengths of a batch, AdamW with
two moments in the weights' dtype, and `RUNTIME` for what no tensor accounts for.

The weights of a system in bytes, with gradients and optimizer, and how devices share them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig

from latentplan.modeling.efficiency.gradient_checkpointing import decoder_layers
from latentplan.modeling.efficiency.kv_cache import reserved
from latentplan.rollout.engine import cache_bytes, vocabulary_bytes
from latentplan.training.configs import GRPOConfig, ModelArguments, RunConfig, SFTConfig
from latentplan.training.memory.dry_run import (
    Lengths,
    as_if_on_a_device,
    build_system,
    peak_of_policy_step,
    peak_of_supervised_step,
)
from latentplan.training.parameter_groups import freeze_parts
from latentplan.training.trainable_model import LatentModelForTraining


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


def weigh(system: LatentModelForTraining) -> Weights:
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


def _largest_unit(system: LatentModelForTraining) -> int:
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


GIB = 2**30
RUNTIME = 1 * GIB
"""Assumed for the CUDA context, workspaces of libraries and the allocator's fragmentation."""


@dataclass(frozen=True)
class Estimate:
    """The memory of one device.

    Attributes:
        weights: the parameters.
        devices, sharding: how many there are, and how the model is spread over them.
        rows: rows (sft) or trajectories (grpo) of one forward pass on a device.
        lengths: the tokens that a batch was taken to have.
        training: bytes of each part while a micro-batch is trained on.
        rollout: bytes of each part while trajectories are sampled; empty for sft.
    """

    weights: Weights
    devices: int
    sharding: str
    rows: int
    lengths: Lengths
    training: Parts
    rollout: Parts

    @property
    def peak(self) -> float:
        """Bytes that one device needs at most."""
        return max(sum(self.training.values()), sum(self.rollout.values()))

    def to_json(self) -> dict:
        """Everything, bytes in GiB."""
        return {
            **asdict(self),
            "training": _in_gib(self.training),
            "rollout": _in_gib(self.rollout),
            "peak_gib": round(self.peak / GIB, 2),
        }


def _in_gib(parts: Parts) -> Parts:
    return {name: round(value / GIB, 3) for name, value in parts.items()}


def estimate_memory(
    model: ModelArguments,
    built_as: SFTConfig,
    run: RunConfig,
    backbone: PreTrainedConfig,
    *,
    decoder: PreTrainedConfig | None = None,
    lengths: Lengths | None = None,
    devices: int = 1,
    sharding: str = "ddp",
    spare_rows: int = 0,
) -> Estimate:
    """The memory of one device for a supervised run, or an RL run on a model that one has trained.

    Args:
        model: how the model is loaded and which of its weights are trained.
        built_as: the supervised settings that decide its parts.
        run: the settings of the run itself; `built_as` again for a supervised run.
        backbone: shape of the backbone.
        decoder: shape of the step decoder, if it is no copy of the backbone.
        lengths: tokens of a batch.
        devices, sharding: over how many devices, and how (`SHARDING`).
        spare_rows: rows of the embeddings that no token uses yet.

    Raises:
        ValueError: there is no such sharding, or a setting does not fit.
    """
    if sharding not in SHARDING:
        raise ValueError(f"sharding must be one of {', '.join(SHARDING)}, got {sharding!r}")
    lengths = lengths or Lengths()
    system = build_system(model, built_as, backbone, decoder, spare_rows)
    _freeze(system, run)
    weights = weigh(system)
    activations = _activations(model, built_as, run, backbone, decoder, lengths, spare_rows)
    rollout: Parts = {}
    spread = SHARDING[sharding](weights, devices)
    if isinstance(run, GRPOConfig):
        held = {name: spread[name] for name in ("weights", "optimizer")}
        gathers = devices > 1 and sharding in GATHERED_FOR_ROLLOUTS
        rollout = {**held, **_rollout(system, run, lengths, gathers), "runtime (assumed)": RUNTIME}
        if run.beta:
            reference = {"reference policy": float(size_of(system.reasoner.parameters()))}
            spread, rollout = {**spread, **reference}, {**rollout, **reference}
    training = {**spread, "activations and temporaries": activations, "runtime (assumed)": RUNTIME}
    return Estimate(weights, devices, sharding, run.per_device_train_batch_size, lengths, training, rollout)


MEASURED_DEPTHS = (4, 6)
"""Layers of the two models that activations are counted on, where all layers are alike."""


def _activations(
    model: ModelArguments,
    built_as: SFTConfig,
    run: RunConfig,
    backbone: PreTrainedConfig,
    decoder: PreTrainedConfig | None,
    lengths: Lengths,
    spare_rows: int,
) -> float:
    """Activations and temporaries; those of a deep model on the line through two shallow ones."""

    def peak(shape: PreTrainedConfig) -> int:
        system = build_system(model, built_as, shape, decoder, spare_rows)
        with FakeTensorMode():
            as_if_on_a_device(system)
            _freeze(system, run)
            if not isinstance(run, GRPOConfig):
                return peak_of_supervised_step(system, built_as, lengths)
            return peak_of_policy_step(system, run, lengths)

    depth = backbone.num_hidden_layers
    alike = len(set(getattr(backbone, "layer_types", None) or [])) <= 1
    if decoder is not None or not alike or depth <= sum(MEASURED_DEPTHS):
        return peak(backbone)
    low, high = MEASURED_DEPTHS
    bottom, top = peak(_with_depth(backbone, low)), peak(_with_depth(backbone, high))
    return bottom + (top - bottom) / (high - low) * (depth - low)


def _freeze(system: LatentModelForTraining, run: RunConfig) -> None:
    """What the run does not train: in RL the step decoder, and parts whose learning rate is 0."""
    if isinstance(run, GRPOConfig) and system.step_decoder is not None:
        system.step_decoder.requires_grad_(False)
    freeze_parts(system, run.learning_rate_factors or {})


def _with_depth(shape: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    other = copy.deepcopy(shape)
    other.num_hidden_layers = layers
    if getattr(other, "layer_types", None):
        other.layer_types = other.layer_types[:layers]
    return other


def _rollout(system: LatentModelForTraining, run: GRPOConfig, lengths: Lengths, gathers: bool) -> Parts:
    """Keys and values of every trajectory of a rollout on a device, and their logits over the vocabulary.

    Where a rollout `gathers` the weights, they are whole and in the dtype of the computation beside the
    device's share.
    """
    config = system.reasoner.config
    rows = run.per_device_train_batch_size * (run.steps_per_generation or run.gradient_accumulation_steps)
    computed_in = 2 if run.bf16 or run.fp16 else system.reasoner.backbone.dtype.itemsize
    positions = lengths.question + config.num_slots + 1 + run.max_completion_length
    cache = rows * cache_bytes(system.reasoner.backbone.config, reserved(positions), computed_in)
    vocabulary: int = system.reasoner.get_output_embeddings().weight.shape[0]  # type: ignore[assignment,index]
    logits = rows * vocabulary_bytes(vocabulary, computed_in)
    gathered = casts = 0
    if gathers:
        gathered = sum(each.numel() * min(each.itemsize, computed_in) for each in system.parameters())
    elif (run.bf16 or run.fp16) and system.reasoner.backbone.dtype == torch.float32:
        casts = size_of(system.reasoner.backbone.parameters()) // 2
    parts = {
        "KV cache": cache,
        "logits": logits,
        "gathered weights": gathered,
        "weights cast by autocast": casts,
    }
    return {name: float(value) for name, value in parts.items() if value}
