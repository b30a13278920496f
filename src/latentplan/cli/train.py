"""`latentplan sft` and `latentplan grpo`: one run from a recipe."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from latentplan.cli.opening import fail
from latentplan.cli.recipe import parse_recipe, quiet_libraries
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import DataError, Problem
from latentplan.rollout.reconstruction import RELIABLE_RECONSTRUCTION, teacher_share

PROBED_PROBLEMS = 128
PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


def sft(context: typer.Context) -> None:
    """Train a method on labelled chains: --config RECIPE, --SETTING VALUE on top (all: --help_settings)."""
    from latentplan.training.arguments import DataArguments, ModelArguments, SFTConfig
    from latentplan.training.run_directory import command_line
    from latentplan.training.runs import train_sft

    model, data, config = _parse((ModelArguments, DataArguments, SFTConfig), context.args)
    _run(lambda: train_sft(model, data, config, command_line()))


def grpo(context: typer.Context) -> None:
    """Reinforce a trained model: --config RECIPE, --SETTING VALUE on top (all: --help_settings)."""
    from latentplan.training.arguments import DataArguments, GRPOConfig, ModelArguments
    from latentplan.training.run_directory import command_line
    from latentplan.training.runs import train_grpo

    model, data, config = _parse((ModelArguments, DataArguments, GRPOConfig), context.args)
    _run(lambda: train_grpo(model, data, config, command_line(), inspect=_warn_if_unreadable))


def _warn_if_unreadable(model: LoadedModel, problems: Sequence[Problem]) -> None:
    """Says so when the decoder misreads latents, since a reward for coherence is then unreliable."""
    labelled = [problem for problem in problems[:PROBED_PROBLEMS] if problem.steps]
    if model.step_decoder is None or not labelled:
        return
    share = teacher_share(model, labelled, batch_size=PROBED_PROBLEMS).value
    if share is not None and share < RELIABLE_RECONSTRUCTION:
        typer.echo(
            f"warning: the decoder reads {share:.0%} of {len(labelled)} training problems' steps exactly, "
            f"below {RELIABLE_RECONSTRUCTION:.0%}: rewards for coherence are unreliable",
            err=True,
        )


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
