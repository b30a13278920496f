"""The base classes of saved models: strict loading, and folders that plain transformers can load."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME

from latentplan.common.files import write_atomically
from latentplan.common.plugins import CodeSource
from latentplan.modeling.backbones import check_config
from latentplan.modeling.folders.adapter_folders import refuse_adapter
from latentplan.modeling.folders.config_rules import Rule, check_values
from latentplan.modeling.folders.damage import blamed_on, check_regular, read_json
from latentplan.modeling.folders.remote_code import hub_kernels
from latentplan.modeling.folders.stored_weights import check_size, stored_weights

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
_FOR_CONFIG = {
    "attn_implementation",
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
}
"""Options of `from_pretrained` that reading the configuration needs as well."""


class CheckpointMismatchError(ValueError):
    """A checkpoint does not hold the tensors that its configuration describes; the message names them."""


class SavedConfig(PreTrainedConfig):
    """A configuration that says where its code is.

    A configuration that was read from a checkpoint has that checkpoint as its `code_source`, and the code
    that it names needs the user's trust. One that was made in Python is the user's own, and its
    `code_source` is None.

    Attributes:
        auto_classes: transformers' auto classes and the names of ours.
        rules: of the values that a file may set.
    """

    auto_classes: ClassVar[dict[str, str]] = {}
    rules: ClassVar[dict[str, Rule]] = {}

    @property
    def code_source(self) -> CodeSource | None:
        """The checkpoint that it was read from; None where the user made it."""
        return self.__dict__.get("_code_source")

    @code_source.setter
    def code_source(self, source: CodeSource | None) -> None:
        self.__dict__["_code_source"] = source

    @property
    def named_kernels(self) -> list[str]:
        """Attention kernels of the hub that the checkpoint chose, and not the user."""
        return self.__dict__.get("_named_kernels", [])

    @named_kernels.setter
    def named_kernels(self, names: list[str]) -> None:
        self.__dict__["_named_kernels"] = names

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> Any:
        """Reads a configuration as transformers does.

        Raises:
            DamagedModelError: the folder holds no valid configuration of this kind; says what is wrong.
        """
        read: Any = super().from_pretrained
        if not Path(pretrained_model_name_or_path).is_dir() or kwargs.get("subfolder"):
            return read(pretrained_model_name_or_path, **kwargs)
        file = Path(pretrained_model_name_or_path) / CONFIG_NAME
        read_json(file)
        with blamed_on(file, "it is no configuration of a model"):
            return read(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Makes a configuration as transformers does, of the values that it has read from a checkpoint.

        Raises:
            InvalidConfigError: a setting has the wrong type or is out of range; names it.
        """
        check_values(cls, config_dict, cls.rules)
        chosen_by_user = kwargs.get("attn_implementation") is not None
        made: Any = super().from_dict(config_dict, **kwargs)
        config = made[0] if isinstance(made, tuple) else made
        # Last, so that no key of the file can pretend otherwise.
        config.code_source = CodeSource(config.name_or_path or "this checkpoint")
        config.named_kernels = [] if chosen_by_user else hub_kernels(config)
        return made

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike) -> Any:
        """Reads a checkpoint's file as transformers does."""
        return cls.from_dict(cls._dict_from_json_file(json_file))

    def to_dict(self) -> dict[str, Any]:
        """Returns the values to save, with the `auto_map` by which transformers finds the code file."""
        module = CODE_FILE.removesuffix(".py")
        names = {auto: f"{module}.{name}" for auto, name in self.auto_classes.items()}
        values = super().to_dict()
        for private in ("_code_source", "_named_kernels"):
            values.pop(private, None)
        return {**values, "auto_map": names}

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Does nothing: transformers would copy this file into every folder that is saved later."""


class SavedModel(PreTrainedModel):
    """A model that is loaded completely or not at all, and whose folder plain transformers can load.

    Raises:
        UntrustedCodeError: the configuration is of a checkpoint that names an attention kernel of the hub.
    """

    def __init__(self, config: SavedConfig, *args: Any, **options: Any):
        for kernel in config.named_kernels:
            if config.code_source is not None:
                config.code_source.allow(f"the attention kernel {kernel!r}")
        super().__init__(config, *args, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
        """Loads a model as transformers does, but strictly; runs code of the checkpoint only if it is
        trusted.

        Args:
            pretrained_model_name_or_path, args, options: as transformers'; `trust_remote_code` (False) lets
                code run that the checkpoint names.

        Raises:
            CheckpointMismatchError: tensors are missing, unexpected, or of another shape; by name.
            DamagedModelError: a file is missing or damaged; says which, and what is wrong.
            UnsupportedBackboneError: its language model cannot be a backbone.
            UntrustedCodeError: the checkpoint names code, and is not trusted.
            ValueError: an adapter lies in the folder, which transformers would put into the model.
        """
        name = pretrained_model_name_or_path
        config = options["config"] = _config_of(cls, name, options)
        if Path(name).is_dir() and not options.get("subfolder"):
            refuse_adapter(name)
            check_folder(Path(name), config, lambda: cls(copy.deepcopy(config)))
        wants_info = options.pop("output_loading_info", False)
        options["ignore_mismatched_sizes"] = True  # so that all of them are named, below
        options["use_safetensors"] = True
        load: Any = super().from_pretrained
        with blamed_on(name, "its weights cannot be loaded"):
            model, info = load(name, *args, output_loading_info=True, **options)
        _check(name, info)
        return (model, info) if wants_info else model

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **options: Any) -> Any:
        """Saves a model as transformers does, with the file by which its auto classes find latentplan."""
        saved = super().save_pretrained(save_directory, *args, **options)
        if options.get("is_main_process", True):
            write_atomically(Path(save_directory) / CODE_FILE, CODE)
        return saved

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Does nothing: transformers would copy this file into every folder that is saved later."""


def check_folder(folder: Path, config: PreTrainedConfig, build: Callable[[], nn.Module]) -> None:
    """Refuses a damaged folder, or one with the weights of another model, before weights are read.

    Args:
        folder: of the checkpoint.
        config: its configuration.
        build: makes the model that it describes.

    Raises:
        DamagedModelError: a file is missing or damaged, or describes a far larger model.
        UnsupportedBackboneError: its language model cannot be a backbone.
    """
    check_regular(folder)
    check_config(getattr(config, "backbone_config", config))
    check_size(build, stored_weights(folder), folder / CONFIG_NAME)


def _config_of(model_class: type[SavedModel], name: Any, options: dict[str, Any]) -> SavedConfig:
    """Returns the given configuration or else the checkpoint's; removes its part from `options`."""
    trusted = bool(options.pop("trust_remote_code", False))
    config = options.get("config")
    if isinstance(config, SavedConfig):
        config = copy.deepcopy(config)
        if options.get("attn_implementation") is not None:
            config.named_kernels = []
    else:
        known = {field.name for field in fields(cast(Any, model_class.config_class))} - {"dtype"}
        changed = {key: options.pop(key) for key in known & options.keys()}
        shared = {key: options[key] for key in _FOR_CONFIG & options.keys()}
        config_class = cast(type[SavedConfig], model_class.config_class)
        config = config_class.from_pretrained(config or name, **shared, **changed)
    if config.code_source is not None:
        config.code_source = CodeSource(str(name), trusted)
    return config


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
    """Says what is wrong with the tensors of a checkpoint, by name; empty where nothing is."""
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
