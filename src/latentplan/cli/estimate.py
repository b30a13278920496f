"""`latentplan estimate`: will a recipe fit on a device? Computed before anything is downloaded or trained.

latentplan estimate --config llama-3.2-1b/atp_latent_sft
latentplan estimate --config llama-3.2-1b/atp_latent_sft --devices 4 --sharding fsdp
latentplan estimate --config llama-3.2-1b/atp_latent_rl --per_device_train_batch_size 8 --json
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from latentplan.cli.load_or_exit import fail
from latentplan.common.text_table import terminal_table
from latentplan.experiments.estimate_plan import read_plan
from latentplan.experiments.recipes import quiet_libraries
from latentplan.modeling.folders.damage import blamed_on
from latentplan.training.memory.dry_run import Lengths
from latentplan.training.memory.memory_estimate import GIB, SHARDING, Estimate, estimate_memory

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


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
    """Compute a recipe's memory on one device; downloads nothing: --config RECIPE, --SETTING VALUE on top."""
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


def _print(result: Estimate) -> None:
    console = Console(soft_wrap=True, highlight=False)
    counts = ", ".join(f"{part} {count:,}" for part, count in result.weights.parameters.items() if count)
    console.print(f"parameters: {counts}; trained: {result.weights.trained:,}")
    parts = [("training", result.training), *([("rollout", result.rollout)] if result.rollout else [])]
    rows = [
        [name, *(_gib(memory.get(name)) for _, memory in parts)]
        for name in dict.fromkeys([*result.training, *result.rollout])
    ]
    rows.append(["together", *(_gib(sum(memory.values())) for _, memory in parts)])
    head = ["GiB on one device", *(name for name, _ in parts)]
    console.print(terminal_table(head, rows, num_left=len(head)))
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
