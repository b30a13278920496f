"""`latentplan data make minigsm`: write word problems that know all their valid chains.

latentplan data make minigsm --preset clock --count 50000 --output train.jsonl
latentplan data make minigsm --preset hard --split test --distractors 2 --count 1000 --output test.jsonl
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import track

from latentplan.problems.minigsm import PRESETS, MinigsmConfig, generate
from latentplan.problems.minigsm.presets import SPLITS
from latentplan.problems.problem import Problem

_HELP = {dial.name: dial.metadata["help"] for dial in fields(MinigsmConfig)}


def _dial(name: str, *flags: str) -> Any:
    return typer.Option(*(flags or (f"--{name}",)), help=_HELP[name], show_default=False)


def minigsm(
    output: Annotated[str, typer.Option("--output", help="The JSONL file to write; - is standard output.")],
    preset: Annotated[
        str, typer.Option("--preset", help=f"Named dials to start from: {', '.join(PRESETS)}.")
    ] = "default",
    split: Annotated[str, typer.Option("--split", help=f"One of {', '.join(SPLITS)}.")] = "train",
    count: Annotated[int, typer.Option("--count", min=0, help="How many problems.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal problems.")] = 0,
    world: Annotated[str | None, _dial("world")] = None,
    min_steps: Annotated[int | None, _dial("min_steps")] = None,
    max_steps: Annotated[int | None, _dial("max_steps")] = None,
    step_weights: Annotated[str | None, _dial("step_weights")] = None,
    distinct: Annotated[str | None, _dial("distinct")] = None,
    label: Annotated[str | None, _dial("label")] = None,
    number_scale: Annotated[int | None, _dial("number_scale")] = None,
    max_number: Annotated[int | None, _dial("max_number")] = None,
    operators: Annotated[str | None, _dial("operators")] = None,
    percentages: Annotated[bool | None, _dial("percentages", "--percentages/--no_percentages")] = None,
    decimals: Annotated[bool | None, _dial("decimals", "--decimals/--no_decimals")] = None,
    distractors: Annotated[int | None, _dial("distractors")] = None,
    families: Annotated[str | None, _dial("families")] = None,
    modulus: Annotated[int | None, _dial("modulus")] = None,
    max_addend: Annotated[int | None, _dial("max_addend")] = None,
    multipliers: Annotated[str | None, _dial("multipliers")] = None,
    phrasing: Annotated[str | None, _dial("phrasing")] = None,
) -> None:
    """Make word problems of one split; lists such as step weights are written with commas: 1,1,2.

    No problem (graph and numbers) is ever in two splits, whatever the seeds.
    """
    if preset not in PRESETS:
        raise typer.BadParameter(f"preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
    dials: dict[str, Any] = {
        name: value for name, value in locals().items() if name in _HELP and value is not None
    }
    try:
        config = replace(PRESETS[preset], **{name: _listed(name, value) for name, value in dials.items()})
        problems = generate(config, split=split, count=count, seed=seed)  # type: ignore[arg-type]
        _write(problems, count, output)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        raise typer.BadParameter(f"cannot write {output}: {error.strerror}") from None


def _listed(name: str, value: object) -> Any:
    """The value of a dial; lists come as text with commas."""
    if name not in ("step_weights", "families", "multipliers"):
        return value
    parts = [part.strip() for part in str(value).split(",") if part.strip()]
    kind = {"step_weights": float, "families": str, "multipliers": int}[name]
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        raise ValueError(f"minigsm: {name} is {value!r}; it must be numbers with commas between") from None


def _write(problems: Iterable[Problem], count: int, output: str) -> None:
    console = Console(stderr=True)
    shown = track(problems, "minigsm", total=count, console=console, transient=True)
    with _opened(output) as file:
        for problem in shown:
            file.write(json.dumps(problem.to_json(), ensure_ascii=False) + "\n")
    if output != "-":
        console.print(f"{output}: {count:,} problems", highlight=False, soft_wrap=True)


@contextmanager
def _opened(output: str) -> Iterator[TextIO]:
    """Standard output, or a file that appears under its name only when it is complete."""
    if output == "-":
        yield sys.stdout
        return
    target = Path(output)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
