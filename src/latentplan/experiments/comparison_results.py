"""What the runs of a comparison measured, over the seeds: rows, tested pairs, and the numbers of the tables.

Every pair of rows is tested on the problems that both have answered with every seed. `flat_rows` gives one
flat row of numbers for each method and benchmark, None where nothing was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from latentplan.common.run_files import (
    predictions_file,
    read_mapping,
    read_record,
    read_rows,
    read_settings,
    result_file,
)
from latentplan.common.secrets import masked, masked_command
from latentplan.common.text_table import is_number
from latentplan.evaluation.statistics import holm, mcnemar, mean_interval, paired_bootstrap, sign_flip_test
from latentplan.experiments.comparison_spec import COMPARISON
from latentplan.report.run_reader import coherence_of, dig

Json = dict[str, Any]


@dataclass
class RunOfSeed:
    """One run of one row.

    Attributes:
        seed: of its training.
        record: run.json.
        config: config.yaml.
        results: its greedy evaluations, by benchmark.
        sampled: its sampled evaluations, by benchmark.
        predictions: whether each problem was solved, by benchmark, then by its index and question.
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
    runs: list[RunOfSeed]
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
    """Returns the comparison in a folder.

    Raises:
        ValueError: there is none.
    """
    try:
        plan = masked(json.loads((folder / COMPARISON).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no comparison: {COMPARISON} cannot be read ({error})") from error
    plan["command"] = masked_command(plan["command"])
    files: dict[tuple[int, str], RunOfSeed] = {}
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


def _read_run(run: Path, seed: int, benchmarks: Sequence[Json]) -> RunOfSeed:
    files = RunOfSeed(seed, read_record(run), read_settings(run))
    for each in benchmarks:
        label, stem = each["label"], each["stem"]
        files.results[label] = read_mapping(result_file(run, stem))
        if each["sampled_stem"] != stem:
            files.sampled[label] = read_mapping(result_file(run, each["sampled_stem"]))
        files.predictions[label] = _solved(predictions_file(run, stem))
    return files


def _solved(file: Path) -> dict[tuple[Any, Any], bool]:
    """Returns whether each problem was solved; nothing where a line of the file is broken."""
    rows, broken = read_rows(file)
    try:
        return {} if broken else {(row["index"], row["question"]): bool(row["correct"]) for row in rows}
    except (KeyError, TypeError):
        return {}


def _with_starts(
    plan: Json, files: Mapping[tuple[int, str], RunOfSeed], name: str, measure: str
) -> float | None:
    """Returns a cost of a row's run and of those that it started from, the mean over seeds."""
    total, each = 0.0, name
    while each is not None:
        cost = mean(files[seed, each].record.get(measure) for seed in plan["seeds"])
        if cost is None:
            return None
        total, each = total + cost, plan["entries"][each]["start"]
    return total


def mean(values: Any) -> float | None:
    """Computes the mean of those that are numbers; None where there are none."""
    numbers = [value for value in values if is_number(value)]
    return fmean(numbers) if numbers else None


def over_seeds(row: Row, benchmark: str, *path: str) -> float | None:
    """Returns the mean of a value of the greedy evaluations."""
    return mean(dig(run.results.get(benchmark), *path) for run in row.runs)


def coherence(row: Row, benchmark: str) -> float | None:
    """Returns the mean coherence of the plans in the greedy evaluations, of the kind that fits them."""
    return mean(coherence_of(run.results.get(benchmark)) for run in row.runs)


def accuracy(row: Row, benchmark: str) -> tuple[float | None, float | None, float | None]:
    """Returns mean accuracy with its 95% interval: Student's over seeds; with one seed Wilson's over
    problems.
    """
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
    """Computes by how much greedy accuracy falls when latents are replaced, in the way that it falls
    least.
    """
    drops = []
    for run in row.runs:
        use = dig(run.results.get(benchmark), "latent_use") or {}
        replaced = [use[name] for name in ("zero", "noise", "other_question") if is_number(use.get(name))]
        if replaced and is_number(use.get("intact")):
            drops.append(use["intact"] - max(replaced))
    return mean(drops)


def problems_per_second(row: Row, benchmark: str) -> float | None:
    """Computes the speed of greedy generation."""
    return mean(
        dig(run.results.get(benchmark), "num_problems") / run.results[benchmark]["seconds"]
        for run in row.runs
        if is_number(dig(run.results.get(benchmark), "seconds")) and run.results[benchmark]["seconds"] > 0
    )


def pass_at_k(row: Row, benchmark: str) -> dict[int, float]:
    """Returns mean pass@k of the sampled evaluations, by k."""
    found = [dig(run.sampled.get(benchmark), "pass_at_k") or {} for run in row.runs]
    powers = sorted({int(k) for each in found for k in each})
    values = {k: mean(each.get(str(k)) for each in found) for k in powers}
    return {k: value for k, value in values.items() if value is not None}


def recorded(row: Row, name: str) -> float | None:
    """Returns the mean of a value of run.json."""
    return mean(run.record.get(name) for run in row.runs)


def steps(row: Row) -> float | None:
    """Returns the optimisation steps of the row's own run."""
    return recorded(row, "steps")


def data_passes(row: Row) -> float | None:
    """Computes how often the row's own run saw each training problem, on average; on one device."""
    return mean(_passes(run) for run in row.runs)


def _passes(run: RunOfSeed) -> float | None:
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
    """Returns whether two costs differ by less than 2%."""
    return math.isclose(one, other, rel_tol=0.02)


@dataclass(frozen=True)
class Pair:
    """Row b against row a on one benchmark.

    Attributes:
        benchmark, a, b: which.
        num_problems: that both have answered.
        difference: accuracy of b minus that of a, the mean over seeds.
        low, high: 95% paired bootstrap over problems.
        seeds_low, seeds_high: 95% Student interval of the difference over seeds; None with one seed.
        p_value: of the sign-flip test over problems (McNemar's exact test with one seed).
        p_holm: corrected for all pairs of the benchmark.
        mcnemar: of each seed, the problems that only a and only b solved, and the p-value.
    """

    benchmark: str
    a: str
    b: str
    num_problems: int
    difference: float
    low: float
    high: float
    seeds_low: float | None
    seeds_high: float | None
    p_value: float
    mcnemar: list[dict[str, Any]]
    p_holm: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def all_pairs(comparison: Comparison, benchmark: str) -> list[Pair]:
    """Returns every two rows, those with the reference first, each with the reference or the earlier row as
    a.
    """
    reference = comparison.plan["reference"]
    rows = sorted(comparison.rows, key=lambda row: row.name != reference)
    found = [_pair(one, other, benchmark) for one, other in combinations(rows, 2)]
    pairs = [pair for pair in found if pair is not None]
    corrected = holm([pair.p_value for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def _pair(one: Row, other: Row, benchmark: str) -> Pair | None:
    both = [
        (first.predictions.get(benchmark, {}), second.predictions.get(benchmark, {}))
        for first, second in zip(one.runs, other.runs, strict=True)
    ]
    both = [(first, second) for first, second in both if first and second]
    if not both:
        return None
    shared = [key for key in both[0][0] if all(key in each for pair in both for each in pair)]
    if not shared:
        return None
    gains = [sum(second[key] - first[key] for first, second in both) for key in shared]
    by_seed = [sum(second[key] - first[key] for key in shared) / len(shared) for first, second in both]
    estimate, low, high = paired_bootstrap([gain / len(both) for gain in gains])
    spread = mean_interval(by_seed) if len(by_seed) > 1 else None
    tests = [mcnemar([a[key] for key in shared], [b[key] for key in shared]) for a, b in both]
    return Pair(
        benchmark,
        one.name,
        other.name,
        len(shared),
        estimate,
        low,
        high,
        None if spread is None else spread.low,
        None if spread is None else spread.high,
        sign_flip_test(gains),
        [test._asdict() for test in tests],
    )


NumberRow = dict[str, Any]


def flat_rows(comparison: Comparison) -> list[NumberRow]:
    """Returns every method on every benchmark, as `table.csv` has it."""
    return [
        {**_what(row, benchmark), **_measured(row, benchmark), **_cost(row), **_sampled(row, benchmark)}
        for benchmark in comparison.benchmarks
        for row in comparison.rows
    ]


def _what(row: Row, benchmark: str) -> NumberRow:
    return {
        "benchmark": benchmark,
        "name": row.name,
        "method": row.title,
        "recipe": row.entry["recipe"],
        "seeds": len([run for run in row.runs if run.results.get(benchmark)]),
    }


def _measured(row: Row, benchmark: str) -> NumberRow:
    estimate, low, high = accuracy(row, benchmark)
    paths = {
        "tokens": ("tokens", "mean"),
        "latents": ("tokens", "latents"),
        "text_tokens": ("tokens", "text"),
        "plan_score": ("plan_score",),
        "reconstruction": ("reconstruction", "teacher_exact"),
        "accuracy_zeroed": ("latent_use", "zero"),
        "accuracy_noise": ("latent_use", "noise"),
        "accuracy_other_question": ("latent_use", "other_question"),
    }
    return {
        "accuracy": estimate,
        "accuracy_low": low,
        "accuracy_high": high,
        "coherence": coherence(row, benchmark),
        **{name: over_seeds(row, benchmark, *path) for name, path in paths.items()},
        "latents_matter": latents_matter(row, benchmark),
        "problems_per_second": problems_per_second(row, benchmark),
    }


def _cost(row: Row) -> NumberRow:
    return {
        "steps": steps(row),
        "data_passes": data_passes(row),
        "training_tokens": recorded(row, "tokens_trained"),
        "training_seconds": recorded(row, "seconds"),
        "training_flops": recorded(row, "flops"),
        "seconds_with_starts": row.total_seconds,
        "flops_with_starts": row.total_flops,
        "learning_rate": mean(run.config.get("learning_rate") for run in row.runs),
    }


def _sampled(row: Row, benchmark: str) -> NumberRow:
    return {f"pass@{k}": value for k, value in pass_at_k(row, benchmark).items()}
