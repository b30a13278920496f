"""Models whose weights are spread over several devices: FSDP2 and DeepSpeed ZeRO-3, through Accelerate.

DDP needs none of this. A sharded model gathers each layer's weights when the layer runs, all devices
together; so every device must run its layers equally often. In training that holds, because passes are made
equal (`Trajectories.padded`); in a rollout it does not, and gathering for every token would be slow: there
the whole weights are gathered once and kept until the rollout is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from transformers import Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from latentplan.modeling.step_decoder import LatentProjection
from latentplan.training.trainable_model import LatentModelForTraining


def uses_fsdp(accelerator: Accelerator) -> bool:
    """Whether weights are sharded by FSDP. Raises ValueError for its first version."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version != 2:
        raise ValueError(
            "latentplan needs FSDP2: set `fsdp_version: 2` in the fsdp_config of the accelerate configuration"
        )
    return plugin is not None


def uses_zero3(accelerator: Accelerator) -> bool:
    """Whether weights are sharded by DeepSpeed."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and plugin.zero_stage == 3


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether no device holds all weights."""
    return uses_fsdp(accelerator) or uses_zero3(accelerator)


def set_precision(accelerator: Accelerator, system: LatentModelForTraining) -> None:
    """Under FSDP2: gradients are summed in float32, and the heads stay in float32 in a unit of their own.

    Accelerate would sum gradients in the dtype of the computation and cast the heads to it.
    """
    if not uses_fsdp(accelerator):
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    plugin = accelerator.state.fsdp_plugin
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(accelerator.mixed_precision))
    if dtype is None:
        return
    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for head in _float32_parts(system):
        fully_shard(head, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))


def _float32_parts(system: LatentModelForTraining) -> list[nn.Module]:
    heads = [system.reasoner.latent_head, system.reasoner.stop_head]
    projections = [module for module in system.modules() if isinstance(module, LatentProjection)]
    return [part for part in [*heads, *projections] if part is not None and list(part.parameters())]


def make_models_whole() -> None:
    """From now on models are made and loaded with whole weights, also under DeepSpeed ZeRO-3.

    transformers would spread a model's weights while it makes it, whatever `zero3_init_flag` says, and those
    could be neither probed, grown by the latent tokens nor copied to a step decoder. DeepSpeed spreads them
    when training starts. It has to be said again whenever an `Accelerator` has been made.
    """
    unset_hf_deepspeed_config()


@contextmanager
def whole_weights(trainer: Trainer) -> Iterator[None]:
    """Inside, every device holds all weights, and layers may run as often as each device likes."""
    if uses_fsdp(trainer.accelerator):
        with _whole_fsdp(trainer.model_wrapped):
            yield
    elif uses_zero3(trainer.accelerator):
        from deepspeed.runtime.zero import unwrap_model_for_generation

        with unwrap_model_for_generation(trainer.model_wrapped):
            yield
    else:
        yield


@contextmanager
def _whole_fsdp(model: Any) -> Iterator[None]:
    from torch.distributed.fsdp import FSDPModule

    with torch.no_grad():
        model(compute=lambda system: None)  # FSDP2 learns at the first call which module is the root
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not model, recurse=False)
            unit.reshard()


def same_everywhere(trainer: Trainer, *sizes: int) -> tuple[int, ...]:
    """The largest of each size over all devices of a sharded run; the sizes themselves otherwise."""
    if not is_sharded(trainer.accelerator):
        return sizes
    mine = torch.tensor([sizes], device=trainer.accelerator.device)
    return tuple(trainer.accelerator.gather(mine).amax(dim=0).tolist())


def full_state_dict(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """All weights on the CPU of the first process, gathered by all; None where they are not sharded."""
    if uses_zero3(trainer.accelerator):
        return trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not uses_fsdp(trainer.accelerator):
        return None
    model, writes = trainer.model_wrapped, trainer.args.should_save
    # Tied weights stay one tensor, or they would be written twice.
    owner = {name: id(value) for name, value in model.named_parameters(remove_duplicate=False)}
    gathered: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}
    for name, value in model.state_dict().items():
        known = first.setdefault(owner.get(name, id(value)), name)
        if known == name:
            whole = whole_tensor(value)
            if writes:
                gathered[name] = whole.cpu()
        elif writes:
            gathered[name] = gathered[known]
    return gathered


def whole_tensor(value: torch.Tensor) -> torch.Tensor:
    """A tensor with all its parts; every process that holds one must call this."""
    if not isinstance(value, DTensor):
        return value.detach()
    whole = cast(DTensor, value.detach()).full_tensor()
    return whole.wait() if isinstance(whole, AsyncCollectiveTensor) else whole
