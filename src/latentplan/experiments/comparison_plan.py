"""`Plan`: a whole comparison, which is written to `compare.json`, and the jobs that carry it out.

For an equal budget, recipes are made longer or shorter, if need be by what a few steps of each cost.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from latentplan.common.files import write_atomically
from latentplan.experiments.budget import (
    BUDGETS,
    PROBE_STEPS,
    Length,
    equal_flops,
    equal_steps,
    length_of,
    stage_costs,
)
from latentplan.experiments.comparison_runs import Evaluations, Runs, conflict_message
from latentplan.experiments.comparison_spec import COMPARISON, Entry
from latentplan.experiments.jobs import Job, run_jobs
from latentplan.experiments.lr_sweep import Sweep
from latentplan.experiments.recipes import with_settings
from latentplan.training.run_directory import RunConflictError

FORMAT_VERSION = 1


@dataclass
class Plan:
    """What is compared, how, and where it lies.

    Attributes:
        output: folder of the tables.
        title, says: of the table, and what papers report.
        entries: each after the one that it starts from.
        order: names of the rows, in the order of the table.
        seeds: of training.
        reference: name of the row that tests compare the others with first.
        budget: `recipes`, `steps` or `flops`.
        runs, sweep: their parts.
        changes: by entry, what the budget has changed.
        notes: what a reader of the table has to know.
    """

    output: Path
    title: str
    says: str
    entries: Sequence[Entry]
    order: Sequence[str]
    seeds: Sequence[int]
    reference: str
    budget: str
    runs: Runs
    sweep: Sweep
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def evaluations(self) -> Evaluations:
        """Of every row."""
        return self.runs.evaluations

    def chosen(self, name: str) -> dict[str, Any] | None:
        """Returns the settings that the sweep has chosen for an entry; None where it still has to."""
        if not self.sweep.covers(self.runs.entries[name]):
            return {}
        rate = self.sweep.chosen(name)
        return None if rate is None else {"learning_rate": rate}

    def clear_conflicts(self) -> None:
        """Deletes runs that are in the way, and those that started from them, if that was requested.

        Raises:
            RunConflictError: there are some, and it was not.
        """
        conflicts = self.runs.all_conflicts(self.seeds, self.chosen)
        if conflicts and not self.runs.redo:
            raise RunConflictError(conflict_message(conflicts))
        for seed in self.seeds:
            gone: set[str] = set()
            for entry in self.entries:
                run = self.runs.folder(seed, entry.name)
                if run in conflicts or entry.start in gone:
                    gone.add(entry.name)
                    shutil.rmtree(run, ignore_errors=True)

    def jobs(self) -> list[Job]:
        """Returns all runs of the sweep and of the comparison."""
        jobs: list[Job] = []
        lengths = lengths_of(self.runs, self.seeds[0])
        for index, seed in enumerate(self.seeds):
            for entry in self.entries:
                length = lengths[entry.name]
                total = round(length.total) if length.unit == "steps" else None
                if index == 0 and self.sweep.covers(entry):
                    jobs += self.sweep.jobs(entry, total)
                jobs.append(self._job(seed, entry, total))
        return jobs

    def _job(self, seed: int, entry: Entry, total_steps: int | None) -> Job:
        def pending() -> list[list[str]]:
            chosen = {"learning_rate": self.sweep.choose(entry.name)} if self.sweep.covers(entry) else {}
            return self.runs.pending(seed, entry.name, **chosen)

        starts = [] if entry.start is None else [f"{seed}/{entry.start}"]
        return Job(
            f"{seed}/{entry.name}",
            f"{entry.title}, seed {seed}",
            run=self.runs.folder(seed, entry.name),
            log=self.runs.output / "logs" / f"{seed}-{entry.name}.log",
            pending=pending,
            needs=[*starts, *self.sweep.job_names(entry)],
            total_steps=total_steps,
            threads=self.runs.threads,
        )

    def save(self, command: str) -> Path:
        """Writes `compare.json`."""
        return write_atomically(
            self.output / COMPARISON, json.dumps(self.to_json(command), indent=2, default=str) + "\n"
        )

    def to_json(self, command: str) -> dict[str, Any]:
        """Returns what `compare.json` holds."""
        benchmarks = [
            {
                **benchmark.to_json(),
                "stem": self.evaluations.stem(benchmark, *self.evaluations.samplings()[0]),
                "sampled_stem": self.evaluations.stem(benchmark, *self.evaluations.samplings()[-1]),
            }
            for benchmark in self.evaluations.benchmarks
        ]
        return {
            "format_version": FORMAT_VERSION,
            "title": self.title,
            "says": self.says,
            "command": command,
            "planned": datetime.now(UTC).isoformat(timespec="seconds"),
            "runs": os.path.relpath(self.runs.output, self.output),
            "seeds": list(self.seeds),
            "reference": self.reference,
            "budget": self.budget,
            "benchmarks": benchmarks,
            "max_new_tokens": self.evaluations.max_new_tokens,
            "num_generations": self.evaluations.num_generations,
            "learning_rates": str(self.sweep.rates),
            "rows": list(self.order),
            "notes": self.notes,
            "entries": {entry.name: self._entry_json(entry) for entry in self.entries},
        }

    def _entry_json(self, entry: Entry) -> dict[str, Any]:
        record = self.sweep.record(entry.name) if self.sweep.covers(entry) else None
        chosen = {} if record is None else {"learning_rate": record["chosen"]}
        return {
            "title": entry.title,
            "recipe": entry.recipe,
            "command": entry.command,
            "start": entry.start,
            "changed": entry.changed,
            "changed_for_budget": dict(self.changes.get(entry.name, {})),
            "sweep": record,
            "settings": {**entry.settings, **chosen},
        }


def lengths_of(runs: Runs, seed: int) -> dict[str, Length]:
    """Returns how long each recipe trains.

    Raises:
        typer.BadParameter: a recipe's settings do not fit together; says which recipe.
    """
    lengths = {}
    for name, entry in runs.entries.items():
        runs.write_recipe(name)
        try:
            *_, config = runs.parsed(runs.training(seed, name))
            lengths[name] = length_of(entry.command, config)
        except (ValueError, typer.BadParameter) as error:
            raise typer.BadParameter(f"{name}: {error}") from error
    return lengths


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
    """Measures the FLOPs of a step of each stage, from a few steps of every supervised recipe."""
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
