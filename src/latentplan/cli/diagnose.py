"""`latentplan diagnose`: what a model's latents are good for, in words, with the figures behind them.

latentplan diagnose runs/NAME
latentplan diagnose runs/NAME --benchmark gsm8k --num_problems 200 --figures
latentplan diagnose runs/NAME --fail_on silent_failure,reconstruction      (exit status 3 if one fails)
"""

from __future__ import annotations

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
    MaxNewTokens,
    ModelFolder,
    NumProblems,
    Seed,
    Split,
    TokensPerLatent,
    TorchThreads,
    TrustRemoteCode,
    column_map,
)
from latentplan.common.run_files import file_stem, results_folder, run_of
from latentplan.evaluation.diagnosis.examine import FINDINGS, examine
from latentplan.evaluation.result_tables import diagnosis_table, write_diagnosis
from latentplan.modeling.loading import find_model
from latentplan.problems.counterfactuals import counterfactuals
from latentplan.problems.sources import load_benchmarks, own_preset

SOMETHING_FAILED = 3
NUM_PROBLEMS = 500


Benchmark = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark",
        help="As for evaluate; may be repeated. By default the run's own minigsm preset.",
    ),
]
NumGenerations = Annotated[
    int,
    typer.Option(
        "--num_generations", min=1, help="Samples of each problem, for the different plans among them."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", help="Folder of the results; the run's diagnosis/ by default.")
]
Figures = Annotated[bool, typer.Option("--figures", help="Print all figures, not the verdicts alone.")]
FailOn = Annotated[
    str,
    typer.Option(
        "--fail_on",
        help=f"Findings, with commas between; if one fails, the exit status is {SOMETHING_FAILED}. "
        f"Also 'all', or 'none'. Names: {', '.join(FINDINGS)}.",
    ),
]


def diagnose(
    model: ModelFolder,
    benchmark: Benchmark = None,
    num_problems: NumProblems = NUM_PROBLEMS,
    split: Split = "test",
    dataset_columns: Columns = None,
    num_generations: NumGenerations = 8,
    max_new_tokens: MaxNewTokens = 128,
    tokens_per_latent: TokensPerLatent = None,
    batch_size: BatchSize = 128,
    seed: Seed = 0,
    output: Output = None,
    figures: Figures = False,
    fail_on: FailOn = "all",
    device: Device = None,
    torch_threads: TorchThreads = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Say whether a model's latents matter, and how: verdicts here, and files of figures (JSON, Markdown)."""
    run = run_of(model)
    try:
        watched = _names(fail_on)
        find_model(model)
        arguments = benchmark or [own_preset(run)]
        columns = column_map(dataset_columns)
        problems = load_benchmarks(arguments, num_problems, split=split, columns=columns)
    except (ValueError, FileNotFoundError) as error:
        fail(error)
    loaded = open_model(model, device, torch_threads, tokens_per_latent, trust_remote_code)
    refuse_unreadable(loaded, arguments, problems, split=split, columns=columns)
    folder = output or results_folder(model, "diagnosis")
    console = Console(highlight=False)
    failed: list[str] = []
    for argument, (label, chosen) in zip(arguments, problems.items(), strict=True):
        with _Shown(console, label) as shown:
            found = examine(
                loaded,
                chosen,
                counterfactuals(argument, chosen, split),
                benchmark=label,
                seed=seed,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                num_generations=num_generations,
                run=run,
                on_progress=shown.next,
            )
        console.print(diagnosis_table(found, with_figures=figures))
        stem = write_diagnosis(found, folder / file_stem(label, 0.0, 0.0, 1, seed))
        console.print(Text(f"all figures in {stem}.json and {stem}.md"), soft_wrap=True)
        failed += [name for name in found.failed if name in watched]
    if failed:
        raise typer.Exit(SOMETHING_FAILED)


def _names(fail_on: str) -> set[str]:
    if fail_on in ("all", "none"):
        return set(FINDINGS) if fail_on == "all" else set()
    names = {name.strip() for name in fail_on.split(",") if name.strip()}
    unknown = sorted(names - set(FINDINGS))
    if unknown or not names:
        raise ValueError(
            f"--fail_on: there is no finding {', '.join(unknown) or repr(fail_on)}; "
            f"there are {', '.join(FINDINGS)}"
        )
    return names


class _Shown:
    """A progress bar over the findings, on terminals only."""

    def __init__(self, console: Console, label: str):
        self.progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task(label, total=len(FINDINGS))
        self.started = False

    def next(self, name: str) -> None:
        """Shows that a finding begins, the one before it being done."""
        self.progress.update(self.task, description=name, advance=int(self.started))
        self.started = True

    def __enter__(self) -> _Shown:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
