"""What is requested of `latentplan compare`, made into a plan: entries, benchmarks, learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer
import yaml
from rich.console import Console

from latentplan.experiments.comparison_plan import Plan, equalise
from latentplan.experiments.comparison_runs import Benchmark, Evaluations, Runs
from latentplan.experiments.comparison_spec import (
    Entry,
    Experiment,
    Item,
    read_entries,
    read_experiment,
    row_names,
)
from latentplan.experiments.lr_sweep import VALIDATION, Rates, Sweep
from latentplan.experiments.recipes import scaled_settings, with_settings
from latentplan.problems.fingerprint import question_fingerprint
from latentplan.problems.problem import DataError
from latentplan.problems.sources import load_benchmarks


@dataclass(frozen=True)
class ComparisonRequest:
    """The options of `latentplan compare`, None where they are left to the experiment or their default.

    Attributes:
        recipes: names or files.
        experiment: a comparison by name or file.
        output: folder of the tables.
        shared: folder of the runs; that of the tables by default.
        seeds, first_seed: how many, and the first of them.
        benchmarks, num_problems, max_new_tokens, num_generations: of the evaluations.
        budget: a name in `budget.BUDGETS`.
        learning_rates: as `read_rates` reads them; empty keeps each recipe's own.
        validation, num_validation: the problems that choose a rate.
        reference: the row that the others are tested against.
        settings: of all recipes, `NAME=VALUE`.
        scale: share of the optimisation steps.
        batch_size, workers, threads: how it is computed.
        redo: whether to delete runs that have other settings.
    """

    recipes: Sequence[str] = ()
    experiment: str | None = None
    output: Path | None = None
    shared: Path | None = None
    seeds: int | None = None
    first_seed: int = 42
    benchmarks: Sequence[str] | None = None
    num_problems: int | None = None
    max_new_tokens: int | None = None
    num_generations: int | None = None
    budget: str = "recipes"
    learning_rates: str = ""
    validation: str | None = None
    num_validation: int = 500
    reference: str | None = None
    settings: Sequence[str] = ()
    scale: float = 1.0
    batch_size: int = 128
    workers: int = 1
    threads: int | None = None
    redo: bool = False


def make_plan(request: ComparisonRequest, console: Console) -> Plan:
    """Makes the plan of a comparison; a budget of FLOPs trains a few steps of each recipe.

    Raises:
        DataError: a benchmark cannot be read.
        JobFailedError: a recipe fails within its first steps.
        typer.BadParameter: nothing is requested, or something that does not exist or fit together.
        ValueError: a recipe lacks what is to be changed in it.
    """
    requested = _requested(
        request.experiment,
        seeds=request.seeds,
        benchmarks=request.benchmarks,
        num_problems=request.num_problems,
        max_new_tokens=request.max_new_tokens,
        num_generations=request.num_generations,
    )
    entries, order = requested_entries(request.recipes, requested, request.settings, request.scale)
    seeds = [request.first_seed + index for index in range(requested.seeds or 3)]
    name = "compare" if request.experiment is None else Path(request.experiment).stem
    folder = request.output or Path("runs") / name
    shared, threads = request.shared or folder, request.threads
    evaluations = _evaluations(requested, entries, request.batch_size, threads)
    changes = equalise(entries, request.budget, shared, seeds[0], request.workers, threads, console)
    runs = Runs(shared, entries, evaluations, threads, request.redo)
    rates = read_rates(request.learning_rates)
    return Plan(
        folder,
        requested.title,
        requested.says.strip(),
        entries,
        order,
        seeds,
        _reference(request.reference or requested.reference or order[0], order),
        request.budget,
        runs,
        _sweep(runs, rates, seeds[0], request.validation, request.num_validation),
        changes,
        _notes(request.workers, request.scale),
    )


def _requested(experiment: str | None, **options: Any) -> Experiment:
    """Returns what an experiment says, if one is named, with what options say instead."""
    requested = Experiment() if experiment is None else read_experiment(experiment)
    return replace(requested, **{name: value for name, value in options.items() if value})


def requested_entries(
    recipes: Sequence[str], requested: Experiment, settings: Sequence[str], scale: float
) -> tuple[list[Entry], list[str]]:
    """Returns the entries, and the names of the rows in the order in which they were named.

    Args:
        recipes: of the command line.
        requested: the experiment, whose rows come first.
        settings: of all recipes, `NAME=VALUE`.
        scale: share of the optimisation steps.

    Raises:
        typer.BadParameter: nothing is requested, or something that does not exist.
    """
    items = [*requested.recipes, *(Item(recipe) for recipe in recipes)]
    if not items:
        raise typer.BadParameter("name recipes to compare, or an --experiment")
    common = {**requested.settings, **dict(_setting(text) for text in settings)}
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


def training_preset(entries: Sequence[Entry]) -> list[str]:
    """Returns the minigsm preset that all rows are trained on. Raises typer.BadParameter if there is none."""
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


def read_rates(text: str) -> Rates:
    """Reads the learning rates in `1e-3,2e-3`, or factors of each recipe's own in `x0.5,x1,x2`.

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


def read_benchmarks(
    arguments: Sequence[str], num_problems: int | None, split: str = "test"
) -> list[Benchmark]:
    """Reads benchmarks, to see that they are there and which problems they hold.

    Raises:
        DataError, ValueError: one of them cannot be read, or two have the same name.
    """
    found = []
    for argument in arguments:
        for label, problems in load_benchmarks([argument], num_problems, split=split).items():
            questions = frozenset(problem.question for problem in problems)
            found.append(Benchmark(argument, label, question_fingerprint(problems), len(problems), questions))
    if len({benchmark.label for benchmark in found}) < len(found):
        raise DataError("two benchmarks have the same name: give them names, NAME=FILE")
    return found


def _evaluations(
    requested: Experiment, entries: Sequence[Entry], batch_size: int, threads: int | None
) -> Evaluations:
    """Returns what every run is evaluated on. Raises DataError where that cannot be read."""
    return Evaluations(
        read_benchmarks(requested.benchmarks or training_preset(entries), requested.num_problems),
        requested.max_new_tokens or 128,
        requested.num_generations or 1,
        batch_size,
        threads,
    )


def _reference(name: str, order: Sequence[str]) -> str:
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
    """Returns the sweep. Raises DataError where what chooses the rates is absent or is tested on."""
    evaluations = runs.evaluations
    argument = validation or evaluations.benchmarks[0].argument
    if not rates.numbers:
        return Sweep(runs, rates, seed, argument, "", num_problems, evaluations)
    if validation is None and not argument.startswith("minigsm:"):
        raise DataError(
            f"name the --validation problems for --learning_rates: {argument} is what is tested on"
        )
    (chosen,) = read_benchmarks([argument], num_problems, split=VALIDATION)
    shared = sum(len(chosen.questions & benchmark.questions) for benchmark in evaluations.benchmarks)
    if shared:
        raise DataError(f"{argument} cannot choose learning rates: {shared} of its questions are tested on")
    return Sweep(runs, rates, seed, argument, chosen.label, chosen.num_problems, evaluations)


def _notes(workers: int, scale: float) -> list[str]:
    notes = []
    if workers > 1:
        notes.append(f"Seconds were measured with {workers} runs side by side on one machine.")
    if scale != 1.0:
        notes.append(f"A quick look: every recipe at {scale:g} of its optimisation steps.")
    return notes
