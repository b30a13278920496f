"""The page of a report: `report.html` and `summary.json`, from what run directories hold.

It shows what was measured, what was trained and what it cost: the settings that matter, the rest of them, and
the commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from latentplan.common.files import write_atomically
from latentplan.common.renamed_settings import renamed_settings
from latentplan.common.run_files import runs_in
from latentplan.common.secrets import masked_command
from latentplan.common.text_table import ABSENT, count, decimal, duration, is_number, percent
from latentplan.report import charts, wording
from latentplan.report.examples import example_groups
from latentplan.report.figures.embed import picture_groups
from latentplan.report.run_reader import ReportEntry, Run, benchmarks_of, load_runs
from latentplan.report.summary import entry_under, summarise_runs, write_summary
from latentplan.report.wording import run_title

_SETTINGS = {
    "method": "Method",
    "model_name_or_path": "Starts from",
    "backbone_config": "Backbone",
    "dataset_name": "Data",
    "dataset_config": "Preset or configuration",
    "dataset_size": "Training problems",
    "max_steps": "Optimisation steps",
    "learning_rate": "Learning rate",
    "lr_scheduler_type": "Its shape",
    "per_device_train_batch_size": "Batch per device",
    "gradient_accumulation_steps": "Batches accumulated",
    "effective_batch_size": "Effective batch",
    "objectives": "Objectives",
    "latents_per_step": "Latents per step",
    "max_latent_steps": "Latent steps at most",
    "curriculum_stages": "Stages of the curriculum",
    "curriculum_steps": "Steps of each stage",
    "curriculum_epochs": "Epochs of each stage",
    "objective": "RL objective",
    "latent_gradient": "Gradient of the latents",
    "num_generations": "Trajectories per question",
    "answers_per_latent": "Answers per chain of latents",
    "reward_funcs": "Rewards",
    "reward_weights": "Their weights",
    "reward_settings": "Their settings",
    "beta": "Weight of the KL",
    "seed": "Seed",
}


def main_settings(run: Run) -> list[tuple[str, str]]:
    """Returns the settings that say what kind of run this was, as (name, value) in words."""
    config = renamed_settings(run.config)
    rows = [(title, config[key]) for key, title in _SETTINGS.items() if _is_set(config.get(key))]
    if is_number(run.record.get("num_parameters")):
        rows.append(("Parameters", run.record["num_parameters"]))
    problems = run.recorded("data", "num_problems")
    if is_number(problems) and not _is_set(run.config.get("dataset_size")):
        rows.append(("Training problems", problems))
    if run.recorded("data", "modulus") is not None:
        rows.append(("Modulus of the arithmetic", run.recorded("data", "modulus")))
    if run.recorded("data", "fingerprint"):
        rows.append(("Fingerprint of the data", run.recorded("data", "fingerprint")))
    return [(title, in_words(value)) for title, value in rows]


def shared_settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Returns the settings that several runs have in common; none if there is only one run."""
    if len(runs) < 2:
        return []
    first, *rest = (main_settings(run) for run in runs)
    return [row for row in first if all(row in rows for rows in rest)]


def own_settings(run: Run, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Returns the settings of a run that are not those of all runs."""
    shared = shared_settings(runs)
    return [row for row in main_settings(run) if row not in shared]


def _is_set(value: Any) -> bool:
    # A limit of -1 is how transformers writes 'no limit'.
    return value is not None and value != -1 and value not in ("", [], {})


def in_words(value: Any) -> str:
    """Returns a setting as a short text: lists with commas, mappings as `name value`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {in_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return count(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def resolved(run: Run) -> str:
    """Returns the whole configuration as YAML, empty if there is none."""
    return yaml.safe_dump(run.config, sort_keys=True, allow_unicode=True, width=100) if run.config else ""


def command_of(run: Run) -> str:
    """Returns the command line that made a run, empty if it was not recorded."""
    return masked_command(run.record.get("command") or "")


def common(runs: Sequence[Run], *path: str) -> list[str]:
    """Returns the different values that the runs recorded under a path, in order."""
    values = (run.recorded(*path) for run in runs)
    return list(dict.fromkeys(str(value) for value in values if value))


def versions(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Returns (library, version or versions) over all runs."""
    names = dict.fromkeys(name for run in runs for name in (run.recorded("versions") or {}))
    return [(name, ", ".join(common(runs, "versions", name))) for name in names]


def render(runs: Sequence[Run], *, seconds: float | None, title: str, command: str) -> str:
    """Returns the report as one HTML document.

    Args:
        runs: as read by `load_runs`.
        seconds: wall time of the whole job.
        title: of the page.
        command: that makes all of it again.
    """
    pictures = picture_groups(runs)  # first, as what cannot be read becomes a note
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            command=command,
            seconds=seconds,
            runs=runs,
            verdict=wording.verdict(runs),
            cautions=wording.cautions(runs),
            notes=[note for run in runs for note in run.notes],
            facts=_facts(runs, seconds),
            groups=example_groups(runs),
            benchmarks=benchmarks_of(runs),
            picture_groups=pictures,
            **_figures(runs),
        )
    )


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    supervised = [run for run in runs if not run.is_rl]
    rl = [run for run in runs if run.is_rl]
    step_figures = (
        charts.by_steps(runs, "accuracy", "Accuracy"),
        charts.by_steps(runs, "coherence", "Coherence of the plans"),
    )
    return {
        "step_figures": [figure for figure in step_figures if figure],
        "step_counts": _step_counts(runs),
        "curves": charts.learning_curves(supervised),
        "validation_figures": charts.validation_curves(runs),
        "upkeep": charts.upkeep_curves(runs),
        "rl": rl,
        "reward_figures": charts.reward_curves(rl),
        "health_figures": [*charts.health_curves(rl), *charts.signal_curves(rl)],
    }


def _step_counts(runs: Sequence[Run]) -> list[tuple[str, Any]]:
    """Returns (number of steps, problems) over all runs."""
    found = {
        steps: group.get("num_problems")
        for run in runs
        for steps, group in (run.measured("by_steps") or {}).items()
        if str(steps).isdigit()
    }
    return sorted(found.items(), key=lambda item: int(item[0]))


def _facts(runs: Sequence[Run], seconds: float | None) -> list[str]:
    """Returns the line below the title: which problems, when, on what, how long."""
    found = {(run.measured("benchmark"), run.measured("num_problems")) for run in runs if run.greedy}
    created = sorted(text for run in runs if isinstance(text := run.record.get("created"), str))
    facts = [f"{count(number)} problems of {name}" for name, number in sorted(found, key=str)]
    facts += [wording.when(created[0])] if created else []
    facts += common(runs, "device")
    return facts + ([f"{duration(seconds)} in all"] if is_number(seconds) else [])


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("latentplan.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, decimal=decimal, count=count, duration=duration)
    environment.globals.update(
        interval_mark=charts.interval_mark,
        swatch=charts.swatch,
        shared_settings=shared_settings,
        own_settings=own_settings,
        resolved=resolved,
        command_of=command_of,
        versions=versions,
        common=common,
        is_number=is_number,
        absent=Markup(ABSENT),
    )
    return environment


def build_report(
    parent: Path,
    entries: Sequence[ReportEntry],
    *,
    seconds: float | None = None,
    title: str = "latentplan report",
    command: str = "",
) -> Path:
    """Writes `report.html` and `summary.json` into `parent` and returns the path of the page.

    Args:
        parent: where the two files go; relative paths of entries are looked up below it too.
        entries: the runs, in the order in which they are shown.
        seconds: wall time of the whole job, if it was measured.
        title: of the page.
        command: that makes all the runs again; empty if there is no single one.

    Raises:
        ValueError: there are no entries, or two have the same name.
    """
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a report needs entries with different names, got {names}")
    runs = load_runs([entry_under(parent, entry) for entry in entries])
    write_summary(parent, summarise_runs(runs, seconds))
    page = render(runs, seconds=seconds, title=title, command=command)
    return write_atomically(parent / "report.html", page)


def find_entries(directory: Path) -> list[ReportEntry]:
    """Returns the directory itself if it is a run, else the runs right below it, in the order of their
    creation.
    """
    runs = [run.resolve() for run in runs_in(directory)]
    return [ReportEntry(run.name, run_title(run.name), run) for run in runs]
