"""Equal training: the recipes of a comparison made as long as the reference, in steps or in FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from latentplan.common.run_files import read_metrics
from latentplan.experiments.comparison_spec import Entry
from latentplan.experiments.recipes import proportional
from latentplan.training.configs import SFTConfig
from latentplan.training.sft_trainer import make_curriculum

BUDGETS = ("recipes", "steps", "flops")
PROBE_STEPS = 4
"""Optimisation steps of each stage by which its FLOPs are measured."""


@dataclass(frozen=True)
class Length:
    """How long a recipe trains.

    Attributes:
        unit: `steps`, or `epochs`, passes over the data.
        stages: of each stage of the curriculum; RL has one.
    """

    unit: str
    stages: tuple[float, ...]

    @property
    def total(self) -> float:
        """Of all stages."""
        return sum(self.stages)

    def settings(self, command: str, total: float) -> dict[str, Any]:
        """Returns what changes in the recipe when it trains for `total` units; stages keep their
        proportions.
        """
        if command != "sft":
            return {"max_steps": round(total)}
        if self.unit == "steps":
            return {"curriculum_steps": proportional(self.stages, round(total))}
        return {"curriculum_epochs": [stage * total / self.total for stage in self.stages]}


def length_of(command: str, config: Any) -> Length:
    """Returns the length of a run with these parsed settings."""
    if not isinstance(config, SFTConfig):
        return Length("steps", (config.max_steps,))
    epochs = config.curriculum_epochs
    if epochs is None:
        return Length("steps", make_curriculum(config).steps)
    in_steps = copy(config)  # only to learn how many stages there are
    in_steps.curriculum_epochs, in_steps.curriculum_steps = None, [1]
    stages = len(make_curriculum(in_steps).stages)
    return Length("epochs", tuple(epochs * stages if len(epochs) == 1 else epochs))


def equal_steps(entries: Sequence[Entry], lengths: Mapping[str, Length]) -> dict[str, dict[str, Any]]:
    """Returns by entry the settings that give each listed recipe as many steps as the first that trains like
    it.

    Supervised recipes are compared with the first supervised one, RL with the first of RL: a step of one is
    nothing like a step of the other.

    Raises:
        typer.BadParameter: two recipes count in different units.
    """
    changes, first = {}, _first_of_each_command(entries)
    for entry in entries:
        if entry.listed:
            length, reference = lengths[entry.name], lengths[first[entry.command].name]
            _check_units(entry, length, first[entry.command], reference)
            changes[entry.name] = length.settings(entry.command, reference.total)
    return changes


def equal_flops(
    entries: Sequence[Entry], lengths: Mapping[str, Length], costs: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """Returns by supervised entry the settings that give it the FLOPs of the first one.

    Args:
        entries: the comparison's.
        lengths: of each.
        costs: FLOPs of one step, for each stage of each supervised listed entry.

    Raises:
        typer.BadParameter: two recipes count in different units.
    """
    changes, first = {}, _first_of_each_command(entries).get("sft")
    for entry in entries:
        if entry.listed and entry.command == "sft" and first is not None:
            length, reference = lengths[entry.name], lengths[first.name]
            _check_units(entry, length, first, reference)
            ratio = _flops(reference, costs[first.name]) / _flops(length, costs[entry.name])
            changes[entry.name] = length.settings("sft", max(length.total * ratio, len(length.stages)))
    return changes


def _flops(length: Length, costs: Sequence[float]) -> float:
    return sum(stage * cost for stage, cost in zip(length.stages, costs, strict=True))


def stage_costs(run: Path) -> list[float]:
    """Computes the FLOPs of one optimisation step of each stage, from a probe that logged every step."""
    rows = read_metrics(run)
    costs, before = [], 0.0
    for _, stage in groupby(rows, key=lambda row: row["stage"]):
        steps = list(stage)
        costs.append((steps[-1]["flops"] - before) / len(steps))
        before = steps[-1]["flops"]
    return costs


def _first_of_each_command(entries: Sequence[Entry]) -> dict[str, Entry]:
    listed = [entry for entry in entries if entry.listed]
    return {entry.command: entry for entry in reversed(listed)}


def _check_units(entry: Entry, length: Length, other: Entry, reference: Length) -> None:
    same_data = all(
        entry.settings.get(name) == other.settings.get(name)
        for name in ("dataset_name", "dataset_size", "effective_batch_size", "per_device_train_batch_size")
    )
    if length.unit != reference.unit or (length.unit == "epochs" and not same_data):
        raise typer.BadParameter(
            f"{entry.name} is {length.total:g} {length.unit} long and {other.name} {reference.total:g} "
            f"{reference.unit}, on other data or batches: steps can be made equal only where both count "
            "steps, or epochs of the same"
        )
