"""`latentplan sft` and `latentplan grpo`: one run from a recipe.

With `--accelerate_config NAME`, `accelerate launch` starts the same command on several devices. NAME is a
configuration that comes with latentplan (ddp, fsdp2, deepspeed_zero2, deepspeed_zero3) or a file written by
`accelerate config`; `--num_processes N` is the number of devices, by default all that are visible, or what
the file says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

import typer

from latentplan.cli.load_or_exit import fail
from latentplan.common.secrets import environment_name, without_secrets
from latentplan.experiments.recipes import parse_recipe, quiet_libraries, secret_settings
from latentplan.problems.problem import DataError

_OPTIONS = ("--accelerate_config", "--num_processes")


def on_several_devices(command: str, arguments: Sequence[str], secrets: Sequence[str] = ()) -> None:
    """Replaces this process by `accelerate launch` if the arguments ask for it.

    The values of `secrets`, settings, reach it through the environment: it shows its arguments when it fails.

    Raises:
        typer.BadParameter: there is no such configuration, an option lacks its value, or there is no device.
    """
    rest, chosen = split_arguments(arguments)
    if "--accelerate_config" not in chosen:
        if "--num_processes" in chosen:
            raise typer.BadParameter(
                f"--num_processes needs --accelerate_config, one of {', '.join(config_names())} or a file"
            )
        return
    path = find_config(chosen["--accelerate_config"])
    rest, hidden = without_secrets(rest, secrets)
    os.environ.update({environment_name(name): value for name, value in hidden.items()})
    _become(launch_command(path, chosen.get("--num_processes"), [command, *rest]))


def launch_command(config: Path, num_processes: str | None, arguments: Sequence[str]) -> list[str]:
    """Returns the command line that runs `latentplan ARGUMENTS` on every device.

    A file of one's own says by itself how many processes there are; our own configurations take all devices.

    Raises:
        typer.BadParameter: no device is visible.
    """
    if num_processes is None and config.parent == _folder():
        num_processes = str(_visible_devices())
    count = [] if num_processes is None else ["--num_processes", num_processes]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launcher, *count, "-m", "latentplan", *arguments]


def _visible_devices() -> int:
    import torch

    count = torch.accelerator.device_count()
    if count == 0:
        raise typer.BadParameter(
            "no accelerator is visible here: leave --accelerate_config out, or say with --num_processes how "
            "many processes are to share the CPU"
        )
    return count


def find_config(name: str) -> Path:
    """Returns the file of an accelerate configuration, by path or by the name of one that comes with
    latentplan.
    """
    if Path(name).is_file():
        return Path(name)
    packaged = _folder() / f"{name.removesuffix('.yaml')}.yaml"
    if packaged.is_file():
        return packaged
    raise typer.BadParameter(
        f"there is no accelerate configuration {name!r}: neither a file nor one of "
        f"{', '.join(config_names())}"
    )


def config_names() -> list[str]:
    """Returns the accelerate configurations that come with latentplan."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    return Path(str(files("latentplan") / "cli" / "accelerate"))


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the arguments of the run itself, and those about the devices by name.

    Raises typer.BadParameter where one of the latter lacks its value.
    """
    rest: list[str] = []
    chosen: dict[str, str] = {}
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        name, equals, value = argument.partition("=")
        if name not in _OPTIONS:
            rest.append(argument)
        elif equals:
            chosen[name] = value
        elif queue:
            chosen[name] = queue.pop(0)
        else:
            raise typer.BadParameter(f"{name} needs a value")
    return rest, chosen


def _become(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(command[0], command)


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
    arguments = ["--help" if each == "--help_settings" else each for each in arguments]
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
