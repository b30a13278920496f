"""`latentplan compare`: recipes on the same data, seeds and budget, as one table.

latentplan compare quickstart/cot quickstart/coconut quickstart/atp_latent_sft --seeds 3
latentplan compare --experiment ablations --learning_rates 1e-3,2e-3,4e-3 --workers 2 --torch_threads 1

It goes on where it was interrupted; runs that have finished are not done again.

What is asked for on the command line, as entries and benchmarks.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from latentplan.cli.load_or_exit import fail
from latentplan.cli.options import BatchSize, TorchThreads, TrustRemoteCode
from latentplan.common.run_files import MODEL
from latentplan.experiments.comparison_plan import Plan, equalise
from latentplan.experiments.comparison_runs import Benchmark, Evaluations, Runs, conflict_message
from latentplan.experiments.comparison_spec import (
    COMPARISON,
    Entry,
    Experiment,
    Item,
    experiment_names,
    read_entries,
    read_experiment,
    row_names,
)
from latentplan.experiments.comparison_tables import build_comparison
from latentplan.experiments.jobs import Job, JobFailedError, run_jobs
from latentplan.experiments.lr_sweep import VALIDATION, Rates, Sweep
from latentplan.experiments.recipes import quiet_libraries, scaled_settings, with_settings
from latentplan.problems.fingerprint import question_fingerprint
from latentplan.problems.problem import DataError
from latentplan.problems.sources import load_benchmarks
from latentplan.training.run_directory import RunConflictError, command_line


def asked_entries(
    recipes: Sequence[str], asked: Experiment, settings: Sequence[str], scale: float
) -> tuple[list[Entry], list[str]]:
    """The entries, and the names of the rows in the order in which they were asked for.

    Args:
        recipes: of the command line.
        asked: the experiment, whose rows come first.
        settings: of all recipes, `NAME=VALUE`.
        scale: share of the optimisation steps.

    Raises:
        typer.BadParameter: nothing is asked for, or something that does not exist.
    """
    items = [*asked.recipes, *(Item(recipe) for recipe in recipes)]
    if not items:
        raise typer.BadParameter("name recipes to compare, or an --experiment")
    common = {**asked.settings, **dict(_setting(text) for text in settings)}
    entries = read_entries(items, common)
    for entry in entries:
        entry.settings = with_settings(entry.settings, scaled_settings(entry.settings, scale))
    return entries, row_names(items)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set takes NAME=VALUE, got {text!r}")
    number = yaml.safe_load(value)
    try:
        return name, float(number) if isinstance(number, str) else number  # YAML takes 1e-3 for a text
    except ValueError:
        return name, number


def own_world(entries: Sequence[Entry]) -> list[str]:
    """The minigsm preset that all rows are trained on. Raises typer.BadParameter where there is none."""
    listed = [entry.settings for entry in entries if entry.listed]
    presets = {settings.get("dataset_config") or "clock" for settings in listed}
    elsewhere = [
        each for each in listed if each.get("dataset_name", "minigsm") not in ("minigsm", ["minigsm"])
    ]
    if len(presets) != 1 or elsewhere:
        raise typer.BadParameter(
            "the recipes are not all trained on one preset of minigsm: name a --benchmark"
        )
    return [f"minigsm:{preset}" for preset in presets]


def asked_rates(text: str) -> Rates:
    """The learning rates in `1e-3,2e-3`, or factors of each recipe's own in `x0.5,x1,x2`.

    Raises typer.BadParameter for anything else.
    """
    words = text.replace(",", " ").split()
    relative = bool(words) and all(word.startswith("x") for word in words)
    try:
        numbers = [float(word.removeprefix("x") if relative else word) for word in words]
    except ValueError:
        numbers = [0.0]
    if any(number <= 0 for number in numbers):
        raise typer.BadParameter(
            f"--learning_rates takes rates (1e-3,2e-3), or factors of each recipe's own (x0.5,x1,x2), "
            f"got {text!r}"
        )
    return Rates(tuple(dict.fromkeys(numbers)), relative)


def asked_benchmarks(
    arguments: Sequence[str], num_problems: int | None, split: str = "test"
) -> list[Benchmark]:
    """The benchmarks, which are read to see that they are there, and which problems they hold.

    Raises:
        DataError, ValueError: one of them cannot be read, or two have the same name.
    """
    found = []
    for argument in arguments:
        for label, problems in load_benchmarks([argument], num_problems, split=split).items():
            asked = frozenset(problem.question for problem in problems)
            found.append(Benchmark(argument, label, question_fingerprint(problems), len(problems), asked))
    if len({benchmark.label for benchmark in found}) < len(found):
        raise DataError("two benchmarks have the same name: give them names, NAME=FILE")
    return found


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
    typer.Option("--benchmark", help="As of latentplan evaluate; by default the world trained on."),
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
        asked = _asked(
            experiment,
            seeds=seeds,
            benchmarks=benchmark,
            num_problems=num_problems,
            max_new_tokens=max_new_tokens,
            num_generations=num_generations,
        )
        common = [*(settings or []), *(["trust_remote_code=true"] if trust_remote_code else [])]
        entries, order = asked_entries(recipes or [], asked, common, scale)
        seed_list = [first_seed + place for place in range(asked.seeds or 3)]
        folder = output or Path("runs") / ("compare" if experiment is None else Path(experiment).stem)
        evaluations = _evaluations(asked, entries, batch_size, torch_threads)
        changes = equalise(entries, budget, shared or folder, seed_list[0], workers, torch_threads, console)
        runs = Runs(shared or folder, entries, evaluations, torch_threads, redo)
        sweep = _sweep(runs, asked_rates(learning_rates), seed_list[0], validation, num_validation)
        plan = Plan(
            folder,
            asked.title,
            asked.says.strip(),
            entries,
            order,
            seed_list,
            _row(reference or asked.reference or order[0], order),
            budget,
            runs,
            sweep,
            changes,
            _notes(workers, scale),
        )
        _follow(plan, plan_only, workers, console)
    except (ValueError, JobFailedError, RunConflictError, typer.BadParameter) as error:
        fail(error)


def _asked(experiment: str | None, **options: Any) -> Experiment:
    """What an experiment says, if one is named, and what options of the command line say instead."""
    asked = Experiment() if experiment is None else read_experiment(experiment)
    return replace(asked, **{name: value for name, value in options.items() if value})


def _evaluations(
    asked: Experiment, entries: Sequence[Entry], batch_size: int, threads: int | None
) -> Evaluations:
    """What every run is evaluated on. Raises DataError where that cannot be read."""
    return Evaluations(
        asked_benchmarks(asked.benchmarks or own_world(entries), asked.num_problems),
        asked.max_new_tokens or 128,
        asked.num_generations or 1,
        batch_size,
        threads,
    )


def _follow(plan: Plan, plan_only: bool, workers: int, console: Console) -> None:
    """Writes a plan down, and carries it out or only shows it.

    Raises:
        RunConflictError: as `_clear_conflicts`.
    """
    _clear_conflicts(plan)
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
    console.print(Markdown((plan.output / "table.md").read_text()))
    console.print(Text("\n".join(map(str, written))), soft_wrap=True)


def _row(name: str, order: Sequence[str]) -> str:
    if name not in order:
        raise typer.BadParameter(f"--reference must be a row of the table, {', '.join(order)}; got {name!r}")
    return name


def _sweep(
    runs: Runs,
    rates: Rates,
    seed: int,
    validation: str | None,
    num_problems: int,
) -> Sweep:
    """Raises DataError where rates are to be chosen, and what chooses them is absent or is tested on."""
    evaluations = runs.evaluations
    argument = validation or evaluations.benchmarks[0].argument
    if not rates.numbers:
        return Sweep(runs, rates, seed, argument, "", num_problems, evaluations)
    if validation is None and not argument.startswith("minigsm:"):
        raise DataError(
            f"name the --validation problems for --learning_rates: {argument} is what is tested on"
        )
    (chosen,) = asked_benchmarks([argument], num_problems, split=VALIDATION)
    shared = sum(len(chosen.questions & benchmark.questions) for benchmark in evaluations.benchmarks)
    if shared:
        raise DataError(f"{argument} cannot choose learning rates: {shared} of its questions are tested on")
    return Sweep(runs, rates, seed, argument, chosen.label, chosen.num_problems, evaluations)


def _clear_conflicts(plan: Plan) -> None:
    """Deletes runs that are in the way, and those that started from them, if that was asked for.

    Raises:
        RunConflictError: there are some, and it was not.
    """
    conflicts = plan.runs.all_conflicts(plan.seeds, plan.chosen)
    if conflicts and not plan.runs.redo:
        raise RunConflictError(conflict_message(conflicts))
    for seed in plan.seeds:
        gone: set[str] = set()
        for entry in plan.entries:
            run = plan.runs.folder(seed, entry.name)
            if run in conflicts or entry.start in gone:
                gone.add(entry.name)
                shutil.rmtree(run, ignore_errors=True)


def _notes(workers: int, scale: float) -> list[str]:
    notes = []
    if workers > 1:
        notes.append(f"Seconds were measured with {workers} runs side by side on one machine.")
    if scale != 1.0:
        notes.append(f"A quick look: every recipe at {scale:g} of its optimisation steps.")
    return notes


def _show(jobs: Sequence[Job], folder: Path, console: Console) -> None:
    for job in jobs:
        state = "finished" if (job.run / MODEL).is_dir() else "to do"
        console.print(
            Text(f"{job.name}: {state}" + (f", {job.total_steps} steps" if job.total_steps else ""))
        )
    console.print(Text(f"plan: {folder / COMPARISON}"), soft_wrap=True)
