"""What was trained and what it cost: the settings that matter, the rest of them, and the commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from latentplan.common.secrets import masked_command
from latentplan.report.formats import count
from latentplan.report.runs import Run, is_number

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
    "estimator": "Gradient of the latents",
    "num_generations": "Trajectories per question",
    "answers_per_latent": "Answers per chain of latents",
    "reward_funcs": "Rewards",
    "reward_weights": "Their weights",
    "beta": "Weight of the KL",
    "seed": "Seed",
}


def main_settings(run: Run) -> list[tuple[str, str]]:
    """The settings that say what kind of run this was, as (name, value) in words."""
    rows = [(title, run.config[key]) for key, title in _SETTINGS.items() if _is_set(run.config.get(key))]
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
    """The settings that several runs have in common; none if there is only one run."""
    if len(runs) < 2:
        return []
    first, *rest = (main_settings(run) for run in runs)
    return [row for row in first if all(row in rows for rows in rest)]


def own_settings(run: Run, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The settings of a run that are not those of all runs."""
    shared = shared_settings(runs)
    return [row for row in main_settings(run) if row not in shared]


def _is_set(value: Any) -> bool:
    # A limit of -1 is how transformers writes 'no limit'.
    return value is not None and value != -1 and value not in ("", [], {})


def in_words(value: Any) -> str:
    """A setting as a short text: lists with commas, mappings as `name value`."""
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
    """The whole configuration as YAML, empty if there is none."""
    return yaml.safe_dump(run.config, sort_keys=True, allow_unicode=True, width=100) if run.config else ""


def command_of(run: Run) -> str:
    """The command line that made a run, empty if it was not recorded."""
    return masked_command(run.record.get("command") or "")


def common(runs: Sequence[Run], *path: str) -> list[str]:
    """The different values that the runs recorded under a path, in order."""
    values = (run.recorded(*path) for run in runs)
    return list(dict.fromkeys(str(value) for value in values if value))


def versions(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(library, version or versions) over all runs."""
    names = dict.fromkeys(name for run in runs for name in (run.recorded("versions") or {}))
    return [(name, ", ".join(common(runs, "versions", name))) for name in names]
