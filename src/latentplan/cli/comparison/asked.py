"""What is asked for on the command line, as entries and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
import yaml

from latentplan.cli.comparison.entries import Entry, Item, read_entries, row_names
from latentplan.cli.comparison.experiments import Experiment
from latentplan.cli.comparison.runs import Benchmark
from latentplan.cli.comparison.sweep import Rates
from latentplan.cli.recipe import with_settings
from latentplan.cli.scale import scaled_settings
from latentplan.problems.fingerprint import question_fingerprint
from latentplan.problems.problem import DataError
from latentplan.problems.sources import load_benchmarks


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
