"""`latentplan select`: one answer from several samples of a question, chosen without its label.

latentplan select runs/latent runs/cot --benchmark minigsm:quickstart
latentplan select runs/latent --benchmark svamp=SVAMP.json --num_generations 64 --temperature 0.7
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from latentplan.cli.load_or_exit import fail, names_of, open_model, refuse_unreadable
from latentplan.cli.options import (
    BatchSize,
    Columns,
    Device,
    LatentTemperature,
    MaxNewTokens,
    NumProblems,
    Seed,
    Split,
    TorchThreads,
    TrustRemoteCode,
    column_map,
)
from latentplan.common.files import write_atomically
from latentplan.common.run_files import file_stem, results_folder
from latentplan.evaluation.best_of_n import compare_models, sample_model
from latentplan.evaluation.result_tables import best_of_n_markdown, best_of_n_table
from latentplan.evaluation.results import SamplingSettings, SelectionResult
from latentplan.modeling.sampling import Sampling
from latentplan.problems.sources import load_benchmarks
from latentplan.report.figures.accuracy_tokens import draw_best_of_n

Models = Annotated[
    list[Path],
    typer.Argument(help="Runs or model folders; the others are compared with one that writes its steps."),
]
Benchmark = Annotated[str, typer.Option("--benchmark", help="One, as for evaluate.")]
NumGenerations = Annotated[
    int,
    typer.Option("--num_generations", min=2, max=1024, help="Samples of each question: the largest k."),
]
Temperature = Annotated[
    float, typer.Option("--temperature", min=0.0, help="Of stops and text tokens; above 0.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Folder of the results; selection/ in the first model's run by default."),
]


def select(
    models: Models,
    benchmark: Benchmark,
    num_problems: NumProblems = 500,
    split: Split = "test",
    dataset_columns: Columns = None,
    num_generations: NumGenerations = 16,
    temperature: Temperature = 1.0,
    latent_temperature: LatentTemperature = None,
    max_new_tokens: MaxNewTokens = 128,
    batch_size: BatchSize = 512,
    seed: Seed = 0,
    output: Output = None,
    device: Device = None,
    torch_threads: TorchThreads = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Choose among samples by vote or plan: accuracy against tokens, as tables, files and a plot."""
    latents = temperature if latent_temperature is None else latent_temperature
    if temperature == latents == 0:
        fail("all samples of a question are the same at temperature 0: set --temperature above 0")
    sampling = Sampling(temperature, latents, max_new_tokens)
    try:
        columns = column_map(dataset_columns)
        ((label, problems),) = load_benchmarks(
            [benchmark], num_problems, split=split, columns=columns
        ).items()
        names = names_of(models)
    except ValueError as error:
        fail(error)
    loaded = [
        open_model(model, device, torch_threads, trust_remote_code=trust_remote_code) for model in models
    ]
    for each in loaded:
        refuse_unreadable(each, [benchmark], {label: problems}, split=split, columns=columns)
    console = Console(highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        sampled = []
        for name, model in zip(names, loaded, strict=True):
            task = progress.add_task(name, total=2 * len(problems))
            sampled.append(
                sample_model(
                    model,
                    problems,
                    name=name,
                    sampling=sampling,
                    num_generations=num_generations,
                    seed=seed,
                    batch_size=batch_size,
                    on_progress=lambda solved, task=task: progress.advance(task, solved),  # type: ignore[misc]
                )
            )
    settings = SamplingSettings(temperature, latents, max_new_tokens)
    result = compare_models(label, problems, settings, seed, sampled, loaded)
    console.print(best_of_n_table(result))
    stem = (output or results_folder(models[0], "selection")) / file_stem(
        label, sampling.temperature, sampling.latent_temperature, num_generations, seed
    )
    for file in write(result, stem):
        console.print(Text(str(file)), soft_wrap=True)


def write(result: SelectionResult, stem: Path) -> list[Path]:
    """Writes STEM.json and STEM.md, and the plot where matplotlib is installed."""
    files = [result.save(stem.with_name(f"{stem.name}.json"))]
    files.append(write_atomically(stem.with_name(f"{stem.name}.md"), best_of_n_markdown(result)))
    return [*files, *draw_best_of_n(result, stem)]
