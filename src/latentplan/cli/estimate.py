"""`latentplan estimate`: will a recipe fit on a device? Computed before anything is downloaded or trained.

latentplan estimate --config llama-3.2-1b/atp_latent_sft
latentplan estimate --config llama-3.2-1b/atp_latent_sft --devices 4 --sharding fsdp
latentplan estimate --config llama-3.2-1b/atp_latent_rl --per_device_train_batch_size 8 --json
"""

from __future__ import annotations

import copy
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedConfig

from latentplan.cli.load_or_exit import fail
from latentplan.common.plugins import CodeSource
from latentplan.common.run_files import MODEL_CONFIG, is_latent_checkpoint
from latentplan.experiments.recipes import closest_classes, parse_recipe, quiet_libraries, recipe_names
from latentplan.methods.base import get_method
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.folders.damage import blamed_on
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.problems.training_set import DataArguments
from latentplan.training.configs import GRPOConfig, ModelArguments, RunConfig, SFTConfig
from latentplan.training.memory.backbone_shapes import SHAPES, backbone_shape, shape_from
from latentplan.training.memory.dry_run import Lengths
from latentplan.training.memory.memory_estimate import GIB, SHARDING, Estimate, estimate_memory

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


@dataclass
class _Plan:
    """What is estimated: a run, and the supervised settings that its model has been or will be built with."""

    model: ModelArguments
    built_as: SFTConfig
    run: RunConfig
    backbone: PreTrainedConfig
    decoder: PreTrainedConfig | None


def estimate(
    context: typer.Context,
    devices: Annotated[int, typer.Option("--devices", min=1, help="How many devices share the work.")] = 1,
    sharding: Annotated[
        str, typer.Option("--sharding", help=f"How the model is spread over them: {', '.join(SHARDING)}.")
    ] = "ddp",
    question_tokens: Annotated[
        int, typer.Option("--question_tokens", min=1, help="Longest question of a batch.")
    ] = Lengths.question,
    step_tokens: Annotated[
        int, typer.Option("--step_tokens", min=1, help="Longest step of a batch.")
    ] = Lengths.step,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a row.")] = Lengths.steps,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Memory of one device for a recipe: --config RECIPE, --SETTING VALUE on top; nothing is downloaded."""
    quiet_libraries()
    lengths = Lengths(question=question_tokens, step=step_tokens, steps=steps)
    try:
        plan = read_plan(context.args)
        with _blamed_on_folder(plan.model.model_name_or_path):
            result = estimate_memory(
                plan.model,
                plan.built_as,
                plan.run,
                plan.backbone,
                decoder=plan.decoder,
                lengths=lengths,
                devices=devices,
                sharding=sharding,
            )
    except (ValueError, OSError, typer.BadParameter) as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=1))
    else:
        _print(result)


def _blamed_on_folder(model: str | None) -> AbstractContextManager:
    """Has failures be those of a model folder, if there is one: it is read without being loaded and tried."""
    if model is None or not Path(model).is_dir():
        return nullcontext()
    return blamed_on(model, "its memory cannot be computed", "see whether latentplan ask can open it")


def read_plan(arguments: list[str]) -> _Plan:
    """The settings of a recipe, whichever kind it is.

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
    return _Plan(model, run, run, _shape_of(model), None if name is None else backbone_shape(name))


def _rl_plan(model: ModelArguments, run: GRPOConfig) -> _Plan:
    """RL starts from a run: the trained model itself, or the recipe that will make it."""
    path = str(model.model_name_or_path)
    if is_latent_checkpoint(f"{path}/model") or is_latent_checkpoint(path):
        folder = f"{path}/model" if is_latent_checkpoint(f"{path}/model") else path
        config = LatentReasonerConfig.from_pretrained(folder)
        _ask_for_trust(config, CodeSource(folder, model.trust_remote_code))
        built_as = _as_built(config)
        return _Plan(model, built_as, run, config.backbone_config, None)
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
    """Supervised settings with the parts of a trained model."""
    names = {item.name for item in fields(SFTConfig)} & set(config.to_dict())
    settings: dict[str, Any] = {name: getattr(config, name) for name in names - set(_shared_names())}
    return SFTConfig(output_dir="estimate", use_cpu=True, report_to="none", **settings)


def _shared_names() -> list[str]:
    return [item.name for item in fields(RunConfig)]


def _shape_of(model: ModelArguments) -> PreTrainedConfig:
    """The backbone that a supervised run starts from, which may be the result of another recipe."""
    path = model.model_name_or_path
    if path is None:
        if model.backbone_config is None:
            raise ValueError("name a model_name_or_path or a backbone_config: there is nothing to estimate")
        return shape_from({"vocab_size": model.vocab_size, **model.backbone_config})
    for folder in (f"{path}/model", path):
        if is_latent_checkpoint(folder):
            return LatentReasonerConfig.from_pretrained(folder).backbone_config
    recipe = None if path in SHAPES else _recipe_that_makes(path)
    if recipe is not None:
        return read_plan(["--config", recipe]).backbone
    return backbone_shape(path)


def _recipe_that_makes(output_dir: str) -> str | None:
    """The name of the packaged recipe whose run has this directory."""
    folder = output_dir.removeprefix("runs/")
    return folder if folder in recipe_names() else None


def _print(result: Estimate) -> None:
    console = Console(soft_wrap=True, highlight=False)
    counts = ", ".join(f"{part} {count:,}" for part, count in result.weights.parameters.items() if count)
    console.print(f"parameters: {counts}; trained: {result.weights.trained:,}")
    table = Table("GiB on one device", "training", *(["rollout"] if result.rollout else []))
    for name in dict.fromkeys([*result.training, *result.rollout]):
        row = [_gib(result.training.get(name)), _gib(result.rollout.get(name))]
        table.add_row(name, *row[: 2 if result.rollout else 1])
    totals = [_gib(sum(result.training.values())), _gib(sum(result.rollout.values()))]
    table.add_row("together", *totals[: 2 if result.rollout else 1])
    console.print(table)
    lengths = result.lengths
    spread = "one device" if result.devices == 1 else f"{result.devices} devices, {result.sharding}"
    console.print(
        f"{result.peak / GIB:.1f} GiB at most, on {spread}, {result.rows} rows at a time. Assumed: "
        f"questions of {lengths.question} tokens, {lengths.steps} steps of {lengths.step}, "
        f"answers of {lengths.answer}; AdamW with two moments in the weights' dtype; fused attention. "
        "Activations are counted by running the code on tensors without memory."
    )


def _gib(value: float | None) -> str:
    return "" if not value else f"{value / GIB:.2f}"
