"""What saved models have in common: strict loading, and folders that plain transformers can load."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig, PreTrainedModel

from latentplan.modeling.adapter_folders import refuse_adapter
from latentplan.problems.files import write_atomically

CODE_FILE = "modeling_latentplan.py"
CODE = '''"""Leads transformers' auto classes to latentplan, which holds the model's code."""

try:
    from latentplan.modeling.configuration import LatentReasonerConfig, StepDecoderConfig
    from latentplan.modeling.reasoner import LatentReasoner
    from latentplan.modeling.step_decoder import StepDecoder
    from latentplan.rollout.causal_lm import LatentReasonerForCausalLM
except ImportError as error:
    raise ImportError("this is a latentplan model: install latentplan (pip install latentplan)") from error

__all__ = [
    "LatentReasoner",
    "LatentReasonerConfig",
    "LatentReasonerForCausalLM",
    "StepDecoder",
    "StepDecoderConfig",
]
'''
_SHOWN = 8


class CheckpointMismatchError(ValueError):
    """A checkpoint holds other tensors than its configuration describes; the message names them."""


class SavedConfig(PreTrainedConfig):
    """A configuration that says where its code is; `auto_classes` is set by each kind."""

    auto_classes: ClassVar[dict[str, str]] = {}

    def to_dict(self) -> dict[str, Any]:
        """The values to save, with the `auto_map` by which transformers finds the code file."""
        module = CODE_FILE.removesuffix(".py")
        names = {auto: f"{module}.{name}" for auto, name in self.auto_classes.items()}
        return {**super().to_dict(), "auto_map": names}

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Does nothing: transformers would copy this file into every folder that is saved later."""


class SavedModel(PreTrainedModel):
    """A model that loads whole or not at all, and whose folder plain transformers can load."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
        """As transformers', but strict.

        Raises:
            CheckpointMismatchError: tensors are missing, unexpected, or of another shape; by name.
            ValueError: an adapter lies in the folder, which transformers would put into the model.
        """
        refuse_adapter(pretrained_model_name_or_path)
        wants_info = options.pop("output_loading_info", False)
        options["ignore_mismatched_sizes"] = True  # so that all of them are named, below
        load: Any = super().from_pretrained
        model, info = load(pretrained_model_name_or_path, *args, output_loading_info=True, **options)
        _check(pretrained_model_name_or_path, info)
        return (model, info) if wants_info else model

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **options: Any) -> Any:
        """As transformers', and the file through which its auto classes find latentplan."""
        saved = super().save_pretrained(save_directory, *args, **options)
        if options.get("is_main_process", True):
            write_atomically(Path(save_directory) / CODE_FILE, CODE)
        return saved

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Does nothing: transformers would copy this file into every folder that is saved later."""


def _check(name: Any, info: dict[str, Any]) -> None:
    shapes = [f"{key} {list(there)}, expected {list(here)}" for key, there, here in info["mismatched_keys"]]
    found = mismatches(info["missing_keys"], info["unexpected_keys"], shapes, info["error_msgs"])
    if found:
        raise CheckpointMismatchError(
            f"{name} does not hold the weights that its config.json describes ({found}): the "
            "folder is incomplete, damaged, or a mixture of two models; save or copy it again"
        )


def mismatches(
    missing: Iterable[str], unexpected: Iterable[str], shapes: Iterable[str], unreadable: Iterable[str] = ()
) -> str:
    """What is wrong with the tensors of a checkpoint, by name and in words; empty where nothing is."""
    problems = {
        "missing": sorted(missing),
        "unexpected": sorted(unexpected),
        "of another shape": sorted(shapes),
        "unreadable": sorted(unreadable),
    }
    return "; ".join(f"{len(names)} {what}: {_shown(names)}" for what, names in problems.items() if names)


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
