"""LoRA adapters in a backbone (arXiv:2106.09685), through peft; peft is imported where it is needed.

Adapters are part of a checkpoint while a run goes on, described by `LatentReasonerConfig.lora`; a finished
model has them merged into its weights, so that it needs no peft.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"


def add_lora(backbone: PreTrainedModel, settings: Mapping[str, Any]) -> None:
    """Puts LoRA adapters into `backbone`, in float32, and freezes everything else in it.

    Args:
        backbone: the causal language model, changed in place.
        settings: fields of peft's `LoraConfig`: r, lora_alpha, lora_dropout, target_modules.

    Raises:
        ImportError: peft is not installed.
        ValueError: no module has one of the names in `target_modules`.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(
            "LoRA needs the peft package: pip install -c constraints.txt -e '.[peft]'"
        ) from error
    chosen = dict(settings)
    if chosen.get("target_modules") in (None, [ALL_LINEAR], ALL_LINEAR):
        chosen["target_modules"] = _linear_names(backbone)
    inject_adapter_in_model(LoraConfig(task_type="CAUSAL_LM", **chosen), backbone)
    for name, parameter in backbone.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def _linear_names(backbone: PreTrainedModel) -> list[str]:
    """Last parts of the names of all linear maps but the output layer (peft's 'all-linear').

    Routers of experts are left alone: Llama 4's is a linear map that gives a tuple, which peft cannot adapt.
    """
    from transformers.pytorch_utils import Conv1D

    output = backbone.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in backbone.named_modules()
            if isinstance(module, nn.Linear | Conv1D)
            and module is not output
            and not type(module).__name__.endswith("Router")
        }
    )


@torch.no_grad()
def merge_lora(backbone: PreTrainedModel) -> None:
    """Adds every adapter to the weights that it adapts, and takes the adapters out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [name for name, module in backbone.named_modules() if isinstance(module, BaseTunerLayer)]
    for name in adapted:
        layer: Any = backbone.get_submodule(name)
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
    backbone.__dict__.pop("peft_config", None)


def merge_saved(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Merges the adapters of a loaded reasoner or step decoder and writes it to `folder` without them."""
    merge_lora(model.backbone)  # type: ignore[arg-type]
    model.config.lora = None
    model.save_pretrained(folder)
