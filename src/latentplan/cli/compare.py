"""`latentplan compare`: recipes on the same data, seeds and budget, as one table.

latentplan compare quickstart/cot quickstart/coconut quickstart/atp_latent_sft --seeds 3
latentplan compare --experiment ablations --learning_rates 1e-3,2e-3,4e-3 --workers 2 --torch_threads 1

It resumes where it was interrupted; runs that have finished are not done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from latentplan.cli.load_or_exit import fail
from latentplan.cli.options import BatchSize, TorchThreads, TrustRemoteCode
from latentplan.common.run_files import MODEL
from latentplan.experiments.comparison_plan import Plan
from latentplan.experiments.comparison_request import ComparisonRequest, make_plan
from latentplan.experiments.comparison_spec import (
    COMPARISON,
    experiment_names,
)
from latentplan.experiments.comparison_tables import build_comparison
from latentplan.experiments.jobs import Job, JobFailedError, run_jobs
from latentplan.experiments.recipes import quiet_libraries
from latentplan.training.run_directory import RunConflictError, command_line

Names = Annotated[
    list[str] | None, typer.Argument(help="Recipes: names of those that come with latentplan, or files.")
]


ExperimentOption = Annotated[
    str | None,
    typer.Option("--experiment", help=f"A comparison by name ({', '.join(experiment_names())}) or file."),
]
Output = Annotated[Path | None, typer.Option("--output", help="Folder of the tables and runs.")]
Shared = Annotated[
    Path | None, typer.Option("--runs", help="Folder of the runs, which comparisons may share.")
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Runs of each recipe; 3.")]
FirstSeed = Annotated[int, typer.Option("--first_seed", help="The others follow it.")]
BenchmarkOption = Annotated[
    list[str] | None,
    typer.Option("--benchmark", help="As of latentplan evaluate; by default the preset trained on."),
]
NumProblems = Annotated[int | None, typer.Option("--num_problems", min=1, help="Of each benchmark at most.")]
MaxNewTokens = Annotated[
    int | None, typer.Option("--max_new_tokens", min=1, help="Text tokens of an answer at most; 128.")
]
NumGenerations = Annotated[
    int | None,
    typer.Option("--num_generations", min=1, help="Samples at temperature 1 for pass@k; 1 leaves it out."),
]
Budget = Annotated[
    str,
    typer.Option("--budget", help="recipes: as they say; steps, flops: as much as the first of them."),
]
LearningRates = Annotated[
    str,
    typer.Option(
        "--learning_rates",
        help="1e-3,2e-3 or x0.5,x1,x2 (of its own): each recipe gets the best on validation data.",
    ),
]
Validation = Annotated[
    str | None, typer.Option("--validation", help="Problems that choose the learning rate.")
]
NumValidation = Annotated[int, typer.Option("--num_validation", min=1, help="How many of them.")]
Reference = Annotated[
    str | None, typer.Option("--reference", help="Row that the others are tested against; the first.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="NAME=VALUE, a setting of all recipes that have it. May be repeated."),
]
Scale = Annotated[
    float, typer.Option("--scale", min=0.0, help="Share of the optimisation steps, for a quick look.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Runs side by side.")]
Redo = Annotated[
    bool, typer.Option("--redo", help="Delete runs that have other settings, and train them again.")
]
PlanOnly = Annotated[
    bool, typer.Option("--plan_only", help="Write compare.json, show what there is to do, and end.")
]


def compare(
    recipes: Names = None,
    experiment: ExperimentOption = None,
    output: Output = None,
    shared: Shared = None,
    seeds: Seeds = None,
    first_seed: FirstSeed = 42,
    benchmark: BenchmarkOption = None,
    num_problems: NumProblems = None,
    max_new_tokens: MaxNewTokens = None,
    num_generations: NumGenerations = None,
    budget: Budget = "recipes",
    learning_rates: LearningRates = "",
    validation: Validation = None,
    num_validation: NumValidation = 500,
    reference: Reference = None,
    settings: Settings = None,
    scale: Scale = 1.0,
    batch_size: BatchSize = 128,
    workers: Workers = 1,
    torch_threads: TorchThreads = None,
    trust_remote_code: TrustRemoteCode = False,
    redo: Redo = False,
    plan_only: PlanOnly = False,
) -> None:
    """Train recipes with several seeds, evaluate them, and write one table with tests and costs."""
    quiet_libraries()
    console = Console(highlight=False)
    try:
        request = ComparisonRequest(
            recipes=recipes or [],
            experiment=experiment,
            output=output,
            shared=shared,
            seeds=seeds,
            first_seed=first_seed,
            benchmarks=benchmark,
            num_problems=num_problems,
            max_new_tokens=max_new_tokens,
            num_generations=num_generations,
            budget=budget,
            learning_rates=learning_rates,
            validation=validation,
            num_validation=num_validation,
            reference=reference,
            settings=[*(settings or []), *(["trust_remote_code=true"] if trust_remote_code else [])],
            scale=scale,
            batch_size=batch_size,
            workers=workers,
            threads=torch_threads,
            redo=redo,
        )
        _follow(make_plan(request, console), plan_only, workers, console)
    except (ValueError, JobFailedError, RunConflictError, typer.BadParameter) as error:
        fail(error)


def _follow(plan: Plan, plan_only: bool, workers: int, console: Console) -> None:
    """Writes a plan down, and carries it out or only shows it.

    Raises:
        RunConflictError: as `Plan.clear_conflicts`.
    """
    plan.clear_conflicts()
    plan.save(command_line())
    if plan_only:
        _show(plan.jobs(), plan.output, console)
    else:
        _carry_out(plan, workers, console)


def _carry_out(plan: Plan, workers: int, console: Console) -> None:
    """Trains and evaluates what is left, and writes the tables."""
    run_jobs(plan.jobs(), workers, console)
    plan.save(command_line())  # with the learning rates that have been chosen
    written = build_comparison(plan.output)
    console.print(Markdown((plan.output / "table.md").read_text(encoding="utf-8")))
    console.print(Text("\n".join(map(str, written))), soft_wrap=True)


def _show(jobs: Sequence[Job], folder: Path, console: Console) -> None:
    for job in jobs:
        state = "finished" if (job.run / MODEL).is_dir() else "to do"
        console.print(
            Text(f"{job.name}: {state}" + (f", {job.total_steps} steps" if job.total_steps else ""))
        )
    console.print(Text(f"plan: {folder / COMPARISON}"), soft_wrap=True)
