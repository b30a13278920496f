"""What `latentplan estimate` computes the memory of: settings to a run and the model that it will train."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from latentplan.common.plugins import CodeSource
from latentplan.common.run_files import MODEL_CONFIG, model_in
from latentplan.experiments.recipes import closest_classes, parse_recipe, recipe_names
from latentplan.methods.base import get_method
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.folders.damage import blamed_on
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.problems.training_set import DataArguments
from latentplan.training.configs import GRPOConfig, ModelArguments, RunConfig, SFTConfig
from latentplan.training.memory.backbone_shapes import SHAPES, backbone_shape, shape_from


@dataclass
class EstimatePlan:
    """What is estimated: a run, and the supervised settings that its model has been or will be built with."""

    model: ModelArguments
    built_as: SFTConfig
    run: RunConfig
    backbone: PreTrainedConfig
    decoder: PreTrainedConfig | None


def read_plan(arguments: list[str]) -> EstimatePlan:
    """Returns the settings of a recipe, whichever kind it is.

    Raises:
        typer.BadParameter, ValueError: the recipe or a setting does not exist.
        OSError: the backbone's shape is neither known nor on the hub.
    """
    arguments = [*arguments, "--use_cpu", "true"]  # precision is computed with, not checked on this machine
    kinds = [(ModelArguments, DataArguments, config) for config in (SFTConfig, GRPOConfig)]
    model, _, run = parse_recipe(closest_classes(arguments, kinds), arguments)
    if isinstance(run, GRPOConfig):
        return _rl_plan(model, run)
    name = model.step_decoder_name_or_path
    return EstimatePlan(model, run, run, _shape_of(model), None if name is None else backbone_shape(name))


def _rl_plan(model: ModelArguments, run: GRPOConfig) -> EstimatePlan:
    """Plans RL, which starts from a run: the trained model itself, or the recipe that will make it."""
    path = str(model.model_name_or_path)
    folder = model_in(path)
    if folder is not None:
        config = LatentReasonerConfig.from_pretrained(folder)
        _ask_for_trust(config, CodeSource(str(folder), model.trust_remote_code))
        built_as = _as_built(config)
        return EstimatePlan(model, built_as, run, config.backbone_config, None)
    recipe = _recipe_that_makes(path)
    if recipe is None:
        raise ValueError(f"{path} is neither a trained model nor the output_dir of a recipe: name either")
    start = read_plan(["--config", recipe])
    return replace(start, model=model, run=run)


def _ask_for_trust(config: LatentReasonerConfig, source: CodeSource) -> None:
    """Makes what a checkpoint names once as the checkpoint's: the estimate makes it as the user's settings.

    Raises:
        UntrustedCodeError: it names code, and is not trusted.
    """
    config.code_source = source
    get_method(config.method, source)
    with blamed_on(Path(source.folder) / MODEL_CONFIG, "no model can be made of it"), torch.device("meta"):
        LatentReasoner(copy.deepcopy(config))


def _as_built(config: LatentReasonerConfig) -> SFTConfig:
    """Returns supervised settings with the parts of a trained model."""
    names = {item.name for item in fields(SFTConfig)} & set(config.to_dict())
    settings: dict[str, Any] = {name: getattr(config, name) for name in names - set(_shared_names())}
    return SFTConfig(output_dir="estimate", use_cpu=True, report_to="none", **settings)


def _shared_names() -> list[str]:
    return [item.name for item in fields(RunConfig)]


def _shape_of(model: ModelArguments) -> PreTrainedConfig:
    """Returns the backbone that a supervised run starts from, which may be the result of another recipe."""
    path = model.model_name_or_path
    if path is None:
        if model.backbone_config is None:
            raise ValueError("name a model_name_or_path or a backbone_config: there is nothing to estimate")
        return shape_from({"vocab_size": model.vocab_size, **model.backbone_config})
    folder = model_in(path)
    if folder is not None:
        return LatentReasonerConfig.from_pretrained(folder).backbone_config
    recipe = None if path in SHAPES else _recipe_that_makes(path)
    if recipe is not None:
        return read_plan(["--config", recipe]).backbone
    return backbone_shape(path)


def _recipe_that_makes(output_dir: str) -> str | None:
    """Returns the name of the packaged recipe whose run has this directory."""
    folder = output_dir.removeprefix("runs/")
    return folder if folder in recipe_names() else None
