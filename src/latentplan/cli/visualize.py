"""`latentplan visualize`: pictures of latents, stops, σ, plans and rewards, of one model or several.

latentplan visualize runs/quickstart/atp_latent_sft runs/quickstart/atp_latent_rl
latentplan visualize runs/NAME --projection umap --fit first --output pictures
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from latentplan.cli.load_or_exit import fail, open_model, refuse_unreadable
from latentplan.cli.options import (
    BatchSize,
    Columns,
    Device,
    LatentTemperature,
    MaxNewTokens,
    NumProblems,
    Seed,
    Split,
    Temperature,
    TorchThreads,
    TrustRemoteCode,
    column_map,
)
from latentplan.common.run_files import home_of, results_folder, run_of
from latentplan.evaluation.collect_latents import collect_latents
from latentplan.evaluation.latent_table import LatentTable
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.problems.sources import load_benchmarks, own_preset
from latentplan.report.figures.draw import LeftOut, Request, check_installed, draw_pictures
from latentplan.report.figures.latent_maps import PROJECTIONS
from latentplan.report.run_reader import ReportEntry, Run, load_runs
from latentplan.report.wording import run_title
from latentplan.training.run_directory import command_line

FITS = ("both", "first")


Models = Annotated[list[Path], typer.Argument(help="Runs or model folders; several are drawn side by side.")]
Benchmark = Annotated[
    str | None,
    typer.Option(
        "--benchmark",
        help="NAME, FILE, NAME=FILE, owner/name of the hub, or minigsm:PRESET; by default the minigsm "
        "preset that the last run was trained on.",
    ),
]
Projection = Annotated[
    list[str] | None,
    typer.Option(
        "--projection", help=f"Of {', '.join(PROJECTIONS)}; may be repeated; pca and tsne by default."
    ),
]
Fit = Annotated[
    str,
    typer.Option(help=f"What a projection is fitted on, {' or '.join(FITS)}; t-SNE always on both."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Folder of the files; the last run's pictures/ by default."),
]


def visualize(
    models: Models,
    benchmark: Benchmark = None,
    num_problems: NumProblems = 400,
    split: Split = "test",
    dataset_columns: Columns = None,
    projection: Projection = None,
    fit: Fit = "both",
    temperature: Temperature = 0.0,
    latent_temperature: LatentTemperature = None,
    max_new_tokens: MaxNewTokens = 128,
    batch_size: BatchSize = 128,
    seed: Seed = 0,
    output: Output = None,
    device: Device = None,
    torch_threads: TorchThreads = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Draw what models do: latents in the plane, stops, σ, decoded plans, rewards. PNG, SVG and the data."""
    names = projection or ["pca", "tsne"]
    _check(names, fit)
    console = Console(highlight=False)
    try:
        columns = column_map(dataset_columns)
        arguments = [benchmark or own_preset(run_of(models[-1]))]
        problems = load_benchmarks(arguments, num_problems, split=split, columns=columns)
    except ValueError as error:
        fail(error)
    ((label, chosen),) = problems.items()
    latents = temperature if latent_temperature is None else latent_temperature
    sampling = Sampling(temperature, latents, max_new_tokens)
    titles = _titles(models)
    tables: dict[str, LatentTable] = {}
    left_out: list[LeftOut] = []
    for title, folder in zip(titles, models, strict=True):
        loaded = open_model(folder, device, torch_threads, trust_remote_code=trust_remote_code)
        if not loaded.reasoner.config.has_latents:
            left_out.append(LeftOut(title, f"{loaded.reasoner.config.method} has no latents"))
            continue
        refuse_unreadable(loaded, arguments, problems, split=split, columns=columns)
        tables[title] = _collect(loaded, chosen, sampling, seed, batch_size, title, console)
    if not tables:
        fail("; ".join(f"{gone.name}: {gone.reason}" for gone in left_out) + ": there is nothing to draw")
    request = Request(
        models=tables,
        runs=_runs_of_rl(models, titles),
        projections=list(dict.fromkeys(names)),
        first_only=fit == "first",
        seed=seed,
        about={"benchmark": label, "num_problems": len(chosen), "command": command_line()},
    )
    _draw(request, output or results_folder(models[-1], "pictures"), left_out, console)


def _check(projections: Sequence[str], fit: str) -> None:
    unknown = [name for name in projections if name not in PROJECTIONS]
    if unknown:
        fail(f"--projection {unknown[0]}: choose from {', '.join(PROJECTIONS)}")
    if fit not in FITS:
        fail(f"--fit {fit}: choose from {', '.join(FITS)}")
    try:
        check_installed(projections)
    except ImportError as error:
        fail(error)


def _titles(models: Sequence[Path]) -> list[str]:
    """Returns a different title for each model, from the name of its run, else from its path."""
    folders = [home_of(model) for model in models]
    titles = [run_title(folder.resolve().name) for folder in folders]
    if len(set(titles)) < len(titles):
        titles = [os.fspath(folder) for folder in folders]
    if len(set(titles)) < len(titles):
        fail("a model is named twice: " + ", ".join(titles))
    return titles


def _collect(
    loaded: LoadedModel,
    problems: list[Problem],
    sampling: Sampling,
    seed: int,
    batch_size: int,
    title: str,
    console: Console,
) -> LatentTable:
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=len(problems))
        return collect_latents(
            loaded,
            problems,
            sampling=sampling,
            seed=seed,
            batch_size=batch_size,
            on_progress=lambda done: progress.advance(task, done),
        )


def _runs_of_rl(models: Sequence[Path], titles: Sequence[str]) -> list[Run]:
    entries = [
        ReportEntry(title, title, home_of(model).resolve())
        for model, title in zip(models, titles, strict=True)
    ]
    return [run for run in load_runs(entries) if run.is_rl]


def _draw(request: Request, folder: Path, left_out: list[LeftOut], console: Console) -> None:
    with console.status("drawing") as status:
        try:
            files, gone = draw_pictures(request, folder, lambda name: status.update(f"drawing: {name}"))
        except OSError as error:
            fail(f"{folder}: the pictures cannot be written there ({error}); see --output")
    for file in files:
        console.print(Text(str(file)), soft_wrap=True)
    for name, reason in [*left_out, *gone]:
        console.print(Text(f"left out: {name}: {reason}", style="yellow"), soft_wrap=True)
