"""Carrying out a budget: recipes are made longer or shorter, by what a few steps of each cost if need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from latentplan.cli.comparison.budget import BUDGETS, PROBE_STEPS, equal_flops, equal_steps, stage_costs
from latentplan.cli.comparison.entries import Entry
from latentplan.cli.comparison.plan import lengths_of
from latentplan.cli.comparison.runs import Runs
from latentplan.cli.jobs import Job, run_jobs
from latentplan.cli.recipe import with_settings


def equalise(
    entries: Sequence[Entry],
    budget: str,
    output: Path,
    seed: int,
    workers: int,
    threads: int | None,
    console: Console,
) -> dict[str, dict[str, Any]]:
    """Makes the recipes equally long, as the budget says; returns what has been changed, by entry."""
    if budget not in BUDGETS:
        raise typer.BadParameter(f"--budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
    if budget == "recipes":
        return {}
    lengths = lengths_of(Runs(output, entries), seed)
    if budget == "steps":
        changes = equal_steps(entries, lengths)
    else:
        changes = equal_flops(entries, lengths, _probe(entries, output, seed, workers, threads, console))
    for entry in entries:
        changed = changes.get(entry.name, {})
        if "max_steps" in changed and entry.settings.get("save_steps", 0) > changed["max_steps"]:
            changed["save_steps"] = changed["max_steps"]
        entry.settings = with_settings(entry.settings, changed)
    return changes


def _probe(
    entries: Sequence[Entry],
    output: Path,
    seed: int,
    workers: int,
    threads: int | None,
    console: Console,
) -> dict[str, list[float]]:
    """FLOPs of a step of each stage, from a few steps of every supervised recipe."""
    probed = [entry for entry in entries if entry.command == "sft"]
    short = [Entry(**{**vars(entry), "settings": _short(entry.settings)}) for entry in probed]
    runs = Runs(output / "probes", short, threads=threads, redo=True)

    def job(entry: Entry) -> Job:
        return Job(
            entry.name,
            f"{entry.title}, FLOPs",
            run=runs.folder(seed, entry.name),
            log=output / "logs" / f"probe-{entry.name}.log",
            pending=lambda: runs.pending(seed, entry.name),
            needs=[] if entry.start is None else [entry.start],
            threads=threads,
        )

    run_jobs([job(entry) for entry in short], workers, console)
    return {entry.name: stage_costs(runs.folder(seed, entry.name)) for entry in short}


def _short(settings: Mapping[str, Any]) -> dict[str, Any]:
    changed = {"curriculum_steps": [PROBE_STEPS], "logging_steps": 1, "save_strategy": "no"}
    return with_settings(dict(settings), {**changed, "eval_strategy": "no", "report_to": "none"})
