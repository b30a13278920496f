"""LoRA adapters in a backbone (arXiv:2106.09685), by peft, which is imported only where it is needed.

During a run adapters are part of its checkpoints and are described by `LatentReasonerConfig.lora`. In a
finished model they are merged into the weights, so that it does not need peft.

An adapter changes one layer. Where that layer shares its weight with another, as tied embeddings do, each
gets a weight of its own: merged into a shared weight, the adapter would change both layers.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
ALL_LINEAR = "all-linear"
ADAPTER_PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
"""Names of the modules that hold adapters in a layer; they stay in float32."""


def peft_package() -> ModuleType:
    """Imports the peft package. Raises ImportError with what to install."""
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            "LoRA needs the peft package: pip install -c constraints.txt -e '.[peft]'"
        ) from error
    return peft


def add_lora(backbone: PreTrainedModel, settings: Mapping[str, Any]) -> None:
    """Adds LoRA adapters to `backbone`, in float32, and freezes all other weights.

    Tied embeddings of which one gets adapters are untied first, with a warning: peft trains each layer's
        adapters
    separately, so that input and output embeddings would differ once the adapters are merged.

    Args:
        backbone: the causal language model, changed in place.
        settings: fields of peft's `LoraConfig`: r, lora_alpha, lora_dropout, target_modules.

    Raises:
        ImportError: peft is not installed.
        ValueError: no module has one of the names in `target_modules`.
    """
    peft = peft_package()
    chosen = dict(settings)
    if chosen.get("target_modules") in (None, [ALL_LINEAR], ALL_LINEAR):
        chosen["target_modules"] = _linear_names(backbone)
    _check_targets(backbone, chosen["target_modules"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        peft.inject_adapter_in_model(peft.LoraConfig(task_type="CAUSAL_LM", **chosen), backbone)
    shared = _shared_with_adapted(backbone)
    if shared:
        logger.warning(
            "adapters on %s, whose weight is another layer's too: each layer gets its own, so the "
            "finished model's embeddings are not tied",
            " and ".join(shared),
        )
        untie(backbone)
    for name, parameter in backbone.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def _check_targets(backbone: PreTrainedModel, targets: Any) -> None:
    """Refuses names of modules that do not exist, which peft ignores where another name exists."""
    names = [name for name, _ in backbone.named_modules()]
    unknown = [
        target
        for target in ([] if isinstance(targets, str) else targets)
        if not any(name == target or name.endswith(f".{target}") for name in names)
    ]
    if unknown:
        raise ValueError(
            f"lora_target_modules: this {backbone.config.model_type} has no module {', '.join(unknown)}; its "
            f"linear maps are {', '.join(_linear_names(backbone))}"
        )


def _shared_with_adapted(backbone: PreTrainedModel) -> list[str]:
    """Returns the names of the adapted layers that share their weight with another layer."""
    owners: dict[int, set[str]] = {}
    for name, parameter in backbone.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), set()).add(name)
    return [
        name
        for name, layer in _adapted(backbone)
        if any(
            not each.startswith(f"{name}.")
            for parameter in layer.parameters()
            for each in owners[id(parameter)]
        )
    ]


@torch.no_grad()
def untie(backbone: PreTrainedModel) -> None:
    """Gives each layer that shares a parameter its own copy, and says so in the configuration."""
    known: set[int] = set()
    for name, parameter in list(backbone.named_parameters(remove_duplicate=False)):
        if id(parameter) in known:
            owner, _, leaf = name.rpartition(".")
            copied = nn.Parameter(parameter.clone(), parameter.requires_grad)
            setattr(backbone.get_submodule(owner), leaf, copied)
        known.add(id(parameter))
    set_tied(backbone, False)


def set_tied(backbone: PreTrainedModel, tied: bool) -> None:
    """Sets in a model's configuration whether its embeddings are tied."""
    for config in (backbone.config, backbone.config.get_text_config(decoder=True)):
        config.tie_word_embeddings = tied
    backbone.all_tied_weights_keys = backbone.get_expanded_tied_weights_keys(all_submodels=True)


def _linear_names(backbone: PreTrainedModel) -> list[str]:
    """Returns the last parts of the names of all linear layers but the output layer (peft's 'all-linear').

    Routers of experts are left out: Llama 4's is a linear layer that returns a tuple, which peft cannot
        adapt.
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


def _adapted(backbone: PreTrainedModel) -> Iterator[tuple[str, Any]]:
    """Yields the outermost layers that peft has inserted, with their names."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    outer = None
    for name, module in backbone.named_modules():
        inside = outer is not None and name.startswith(f"{outer}.")
        if not inside and isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            outer = name
            yield name, module


@torch.no_grad()
def merge_lora(backbone: PreTrainedModel) -> None:
    """Merges every adapter into the weights that it adapts, and removes the adapters."""
    if _shared_with_adapted(backbone):
        untie(backbone)
    for name, layer in list(_adapted(backbone)):
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, _merged(layer))
    backbone.__dict__.pop("peft_config", None)


def _merged(layer: Any) -> nn.Module:
    """Returns the layer without its adapter, which is merged into the weights."""
    if hasattr(layer, "unload_and_optionally_merge_module"):  # fully trained, or some of its rows
        return layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
    layer.merge(safe_merge=True)
    return layer.get_base_layer()


def merge_saved(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Merges the adapters of a loaded reasoner or step decoder and writes it to `folder` without them."""
    merge_lora(model.backbone)  # type: ignore[arg-type]
    model.config.lora = None
    model.save_pretrained(folder)
