"""`latentplan sft` and `latentplan grpo`: one run from a recipe."""

from __future__ import annotations

import typer

from latentplan.cli.launch import on_several_devices
from latentplan.cli.opening import fail
from latentplan.cli.recipe import parse_recipe, quiet_libraries, secret_settings
from latentplan.problems.problem import DataError

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


def sft(context: typer.Context) -> None:
    """Train a method on labelled chains: --config RECIPE, --SETTING VALUE on top (all: --help_settings)."""
    from latentplan.problems.training_set import DataArguments
    from latentplan.training.configs import ModelArguments, SFTConfig
    from latentplan.training.run_directory import command_line
    from latentplan.training.run_training import train_sft

    classes = (ModelArguments, DataArguments, SFTConfig)
    _launch("sft", context.args, classes)
    model, data, config = _parse(classes, context.args)
    _run(lambda: train_sft(model, data, config, command_line()))


def grpo(context: typer.Context) -> None:
    """Reinforce a trained model: --config RECIPE, --SETTING VALUE on top (all: --help_settings)."""
    from latentplan.problems.training_set import DataArguments
    from latentplan.training.configs import GRPOConfig, ModelArguments
    from latentplan.training.run_directory import command_line
    from latentplan.training.run_training import train_grpo

    classes = (ModelArguments, DataArguments, GRPOConfig)
    _launch("grpo", context.args, classes)
    model, data, config = _parse(classes, context.args)
    _run(lambda: train_grpo(model, data, config, command_line()))


def _launch(command: str, arguments: list[str], classes: tuple[type, ...]) -> None:
    try:
        on_several_devices(command, arguments, secret_settings(classes))
    except typer.BadParameter as error:
        fail(error)


def _parse(classes, arguments):  # type: ignore[no-untyped-def]
    quiet_libraries()
    if "--help_settings" in arguments:
        arguments = ["--help"]
    try:
        return parse_recipe(classes, arguments)
    except (ValueError, typer.BadParameter) as error:
        fail(error)


def _run(train) -> None:  # type: ignore[no-untyped-def]
    try:
        run = train()
    except (DataError, ValueError, FileNotFoundError) as error:
        fail(error)
    if "seconds" in run.record:  # only the first of several processes has measured it
        typer.echo(
            f"{run.path}: {run.record['method']} trained in {run.record['seconds']:.0f} s; "
            f"model in {run.model_path}"
        )
