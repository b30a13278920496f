"""What the runs of a comparison measured, and what it comes to over the seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from latentplan.common.secrets import masked, masked_command
from latentplan.evaluation.statistics import mean_interval
from latentplan.report.run_reader import coherence_of, dig, is_number

Json = dict[str, Any]


@dataclass
class RunFiles:
    """One run of one row.

    Attributes:
        seed: of its training.
        record: run.json.
        config: config.yaml.
        results: its greedy evaluations, by benchmark.
        sampled: its sampled evaluations, by benchmark.
        predictions: whether each problem was solved, by benchmark, then by its place and question.
    """

    seed: int
    record: Json = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    results: dict[str, Json] = field(default_factory=dict)
    sampled: dict[str, Json] = field(default_factory=dict)
    predictions: dict[str, dict[tuple[Any, Any], bool]] = field(default_factory=dict)


@dataclass
class Row:
    """One row of the table.

    Attributes:
        name, title: of the row.
        entry: what compare.json says of it.
        runs: one for each seed.
        total_flops, total_seconds: means over seeds, with those of the runs that it started from.
    """

    name: str
    title: str
    entry: Json
    runs: list[RunFiles]
    total_flops: float | None = None
    total_seconds: float | None = None


@dataclass
class Comparison:
    """A comparison as its folder holds it.

    Attributes:
        plan: compare.json.
        rows: in the order of the table.
    """

    plan: Json
    rows: list[Row]

    @property
    def benchmarks(self) -> list[str]:
        """Short names."""
        return [each["label"] for each in self.plan["benchmarks"]]


def read_comparison(folder: Path) -> Comparison:
    """The comparison in a folder.

    Raises:
        ValueError: there is none.
    """
    try:
        plan = masked(json.loads((folder / "compare.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no comparison: compare.json cannot be read ({error})") from error
    plan["command"] = masked_command(plan["command"])
    files: dict[tuple[int, str], RunFiles] = {}
    for seed in plan["seeds"]:
        for name in plan["entries"]:
            listed = name in plan["rows"]
            run = folder / plan["runs"] / str(seed) / name
            files[seed, name] = _read_run(run, seed, plan["benchmarks"] if listed else [])
    rows = []
    for name in plan["rows"]:
        entry = plan["entries"][name]
        row = Row(name, entry["title"], entry, [files[seed, name] for seed in plan["seeds"]])
        row.total_flops = _with_starts(plan, files, name, "flops")
        row.total_seconds = _with_starts(plan, files, name, "seconds")
        rows.append(row)
    return Comparison(plan, rows)


def _read_run(run: Path, seed: int, benchmarks: Sequence[Json]) -> RunFiles:
    files = RunFiles(seed, _load(run / "run.json", json.loads), _load(run / "config.yaml", yaml.safe_load))
    for each in benchmarks:
        label, stem = each["label"], each["stem"]
        files.results[label] = _load(run / "evaluation" / f"{stem}.json", json.loads)
        if each["sampled_stem"] != stem:
            files.sampled[label] = _load(run / "evaluation" / f"{each['sampled_stem']}.json", json.loads)
        files.predictions[label] = _solved(run / "evaluation" / f"{stem}.jsonl")
    return files


def _load(file: Path, parse: Callable[[str], Any]) -> Json:
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _solved(file: Path) -> dict[tuple[Any, Any], bool]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return {(row["index"], row["question"]): bool(row["correct"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _with_starts(
    plan: Json, files: Mapping[tuple[int, str], RunFiles], name: str, measure: str
) -> float | None:
    """A cost of a row's run and of those that it started from, the mean over seeds."""
    total, each = 0.0, name
    while each is not None:
        cost = mean(files[seed, each].record.get(measure) for seed in plan["seeds"])
        if cost is None:
            return None
        total, each = total + cost, plan["entries"][each]["start"]
    return total


def mean(values: Any) -> float | None:
    """Of those that are numbers; None where there are none."""
    numbers = [value for value in values if is_number(value)]
    return fmean(numbers) if numbers else None


def over_seeds(row: Row, benchmark: str, *path: str) -> float | None:
    """The mean of a value of the greedy evaluations."""
    return mean(dig(run.results.get(benchmark), *path) for run in row.runs)


def coherence(row: Row, benchmark: str) -> float | None:
    """The mean coherence of the plans in the greedy evaluations, of the kind that fits them."""
    return mean(coherence_of(run.results.get(benchmark)) for run in row.runs)


def accuracy(row: Row, benchmark: str) -> tuple[float | None, float | None, float | None]:
    """Mean accuracy with its 95% interval: Student's over seeds; with one seed Wilson's over problems."""
    found = [dig(run.results.get(benchmark), "accuracy") for run in row.runs]
    values = [each["estimate"] for each in found if is_number(dig(each, "estimate"))]
    if not values:
        return None, None, None
    if len(values) == 1:
        only = next(each for each in found if is_number(dig(each, "estimate")))
        return values[0], only.get("low"), only.get("high")
    estimate, low, high = mean_interval(values)
    return estimate, max(0.0, low), min(1.0, high)


def latents_matter(row: Row, benchmark: str) -> float | None:
    """By how much greedy accuracy falls when latents are replaced, in the way that it falls least."""
    drops = []
    for run in row.runs:
        use = dig(run.results.get(benchmark), "latent_use") or {}
        replaced = [use[name] for name in ("zero", "noise", "other_question") if is_number(use.get(name))]
        if replaced and is_number(use.get("intact")):
            drops.append(use["intact"] - max(replaced))
    return mean(drops)


def problems_per_second(row: Row, benchmark: str) -> float | None:
    """Of greedy generation."""
    return mean(
        dig(run.results.get(benchmark), "num_problems") / run.results[benchmark]["seconds"]
        for run in row.runs
        if is_number(dig(run.results.get(benchmark), "seconds")) and run.results[benchmark]["seconds"] > 0
    )


def pass_at_k(row: Row, benchmark: str) -> dict[int, float]:
    """Mean pass@k of the sampled evaluations, by k."""
    found = [dig(run.sampled.get(benchmark), "pass_at_k") or {} for run in row.runs]
    powers = sorted({int(k) for each in found for k in each})
    values = {k: mean(each.get(str(k)) for each in found) for k in powers}
    return {k: value for k, value in values.items() if value is not None}


def recorded(row: Row, name: str) -> float | None:
    """The mean of a value of run.json."""
    return mean(run.record.get(name) for run in row.runs)


def steps(row: Row) -> float | None:
    """Optimisation steps of the row's own run."""
    return recorded(row, "steps")


def data_passes(row: Row) -> float | None:
    """How often the row's own run saw each training problem, on average; on one device."""
    return mean(_passes(run) for run in row.runs)


def _passes(run: RunFiles) -> float | None:
    config, taken = run.config, run.record.get("steps")
    problems = dig(run.record, "data", "num_problems")
    if not (is_number(taken) and is_number(problems) and problems):
        return None
    micro = config.get("per_device_train_batch_size", 8) * config.get("gradient_accumulation_steps", 1)
    rows = taken * (config.get("effective_batch_size") or micro)
    if "num_generations" in config:
        rows /= config["num_generations"] * config.get("num_iterations", 1)
    return rows / problems


def is_close(one: float, other: float) -> bool:
    """Whether two costs differ by less than 2%."""
    return math.isclose(one, other, rel_tol=0.02)
