"""PEFT adapters in the folder of a model that a run starts from.

An adapter in the folder of its base model is merged before training, so that it is not lost. An adapter
without its base is refused by name, and so is an adapter in the folder of a latentplan model.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from latentplan.common.run_files import MODEL_CONFIG
from latentplan.modeling.lora import merge_lora, peft_package, set_tied

logger = logging.getLogger(__name__)
WITHOUT_ADAPTER = {"adapter_kwargs": {"subfolder": ".no-adapter"}}
"""Options of `from_pretrained` for a model alone; transformers would add an adapter without merging it."""
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def has_adapter(name_or_path: str, revision: str | None = None) -> bool:
    """Says whether a model folder holds an adapter together with its base model.

    Raises:
        ValueError: it holds an adapter alone; the message says of which model.
    """
    file = find_adapter_config_file(name_or_path, revision=revision)
    if file is None:
        return False
    folder = Path(name_or_path)
    weights = any(any(folder.glob(pattern)) for pattern in _WEIGHTS)
    if weights and (folder / MODEL_CONFIG).is_file():
        return True
    raise ValueError(
        f"{name_or_path} is {_describe_adapter(file)}, not a whole model: merge it into its base first "
        "(peft: PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)), or put "
        "its adapter_* files into the folder of its base, and start from that folder"
    )


def refuse_adapter(folder: str | os.PathLike) -> None:
    """Refuses the folder of a latentplan model that also holds an adapter. Raises ValueError."""
    file = Path(str(folder)) / "adapter_config.json"
    if file.is_file():
        raise ValueError(
            f"{folder} holds {_describe_adapter(file)} next to a latentplan model, which is complete without "
            "it: take the adapter_* files out of the folder"
        )


def _describe_adapter(file: str | os.PathLike) -> str:
    try:
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
        kind, base = settings["peft_type"], settings["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        return f"a PEFT adapter whose {file} cannot be read"
    return f"a PEFT adapter ({kind}) of the model {base}"


@torch.no_grad()
def merge_adapter(backbone: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Merges the adapter in `folder`, of an earlier training, into its base model.

    Tied embeddings stay tied where the adapter has changed both in the same way.

    Raises:
        ImportError: peft is not installed.
        ValueError: it cannot be merged, or belongs to another model; the message says why.
    """
    peft, kept = peft_package(), backbone.config.tie_word_embeddings
    settings = peft.PeftConfig.from_pretrained(str(folder))
    if settings.is_prompt_learning or settings.is_adaption_prompt:
        raise ValueError(
            f"the adapter in {folder} is of the kind {settings.peft_type.value}, which cannot become part of "
            "the weights: take it out of the folder to start from the model without it"
        )
    _load_adapter(backbone, settings, folder)
    merge_lora(backbone)
    backbone.requires_grad_(True)
    tables = [backbone.get_input_embeddings().weight, backbone.get_output_embeddings().weight]
    if kept and tables[0] is not tables[1] and torch.equal(*tables):  # type: ignore[arg-type]
        set_tied(backbone, True)
        backbone.tie_weights()
    logger.warning("%s holds an adapter next to the model: it has been merged into the weights", folder)


def _load_adapter(backbone: PreTrainedModel, settings: Any, folder: str | os.PathLike) -> None:
    """Adds an adapter with the weights of `folder` to the model; all of them must fit."""
    misfit = f"the adapter in {folder} does not fit the model next to it"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
            found = peft_package().PeftModel(backbone, settings).load_adapter(str(folder), "default")
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise ValueError(f"{misfit}: {' '.join(str(error).split())[:300]}") from error
    # peft saves full embeddings a second time under a name that it does not read.
    names = [*found.missing_keys, *(name for name in found.unexpected_keys if "modules_to_save" not in name)]
    if names:
        raise ValueError(f"{misfit}: {len(names)} of its weights are missing or have no place, as {names[0]}")
