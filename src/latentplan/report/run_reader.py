"""Runs as the report needs them: their evaluations, the benchmark that they share, pairs before and after RL.

What is missing or broken in a run directory becomes a note, never a failure. Two runs are compared on the
same problems by McNemar's test, else by their intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from latentplan.common.run_files import (
    METRICS,
    RECORD,
    SETTINGS,
    evaluations,
    predictions_file,
    read_mapping,
    read_rows,
)
from latentplan.common.secrets import masked
from latentplan.common.text_table import is_number
from latentplan.evaluation.statistics import mcnemar

Result = dict[str, Any]


@dataclass
class Evaluated:
    """What a run reached on one benchmark.

    Attributes:
        stem: name of the file that the greedy evaluation is in, without its suffix.
        greedy: the evaluation with temperature 0, or None.
        sampled: the evaluation with temperature 1, or None.
    """

    stem: str = ""
    greedy: Result | None = None
    sampled: Result | None = None


def by_benchmark(files: Iterable[tuple[str, Result]]) -> dict[str, Evaluated]:
    """Returns the evaluations of one run, given as (file name without suffix, contents) in order of
    preference.
    """
    found: dict[str, Evaluated] = {}
    for stem, result in files:
        evaluated = found.setdefault(str(result.get("benchmark") or stem), Evaluated())
        temperatures = _temperatures(result)
        if temperatures == (0, 0) and evaluated.greedy is None:
            evaluated.stem, evaluated.greedy = stem, result
        elif temperatures == (1, 1) and evaluated.sampled is None:
            evaluated.sampled = result
    return found


def _temperatures(result: Result) -> tuple[Any, Any]:
    """Returns the temperatures of the text and of the latents; greedy where the file does not say."""
    sampling = result.get("sampling")
    sampling = sampling if isinstance(sampling, dict) else {}
    temperature = sampling.get("temperature") or 0
    latent = sampling.get("latent_temperature")
    return temperature, temperature if latent is None else latent


def main_benchmark(found: Sequence[dict[str, Evaluated]]) -> str | None:
    """Returns the benchmark to compare runs on: one that as many of them as possible share.

    Among these come first those with a sampled evaluation too, then files called `test…`, then minigsm,
    then GSM8K, then the first by name.
    """
    names = {name for run in found for name in run}

    def rank(name: str) -> tuple[Any, ...]:
        shared = [run[name] for run in found if name in run and run[name].greedy]
        sampled = [evaluated for evaluated in shared if evaluated.sampled]
        is_test = any(evaluated.stem.startswith("test") for evaluated in shared)
        is_minigsm = name.startswith("minigsm")
        return -len(shared), -len(sampled), not is_test, not is_minigsm, name != "gsm8k", name

    return min(names, key=rank, default=None)


@dataclass(frozen=True)
class ReportEntry:
    """One run in a report.

    Attributes:
        name: key of the run in `summary.json`: `atp_latent_rl`.
        title: what readers see: `ATP-Latent, RL`.
        path: the run directory.
    """

    name: str
    title: str
    path: Path


@dataclass
class Run:
    """What a run directory holds.

    Attributes:
        entry: which run.
        slot: index among the runs of the report, which decides its colour.
        record: run.json.
        config: the resolved settings, config.yaml.
        metrics: one mapping per optimisation step that was logged, in order.
        evaluations: its evaluations by benchmark.
        benchmark: the one that the report is about.
        predictions: the rows of the greedy evaluation on it.
        notes: what could not be read.
    """

    entry: ReportEntry
    slot: int = 0
    record: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluations: dict[str, Evaluated] = field(default_factory=dict)
    benchmark: str | None = None
    predictions: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Key of the run in `summary.json`."""
        return self.entry.name

    @property
    def title(self) -> str:
        """What readers see."""
        return self.entry.title

    @property
    def greedy(self) -> dict[str, Any] | None:
        """The evaluation with temperature 0 on the report's benchmark."""
        return self.evaluations.get(self.benchmark or "", Evaluated()).greedy

    @property
    def sampled(self) -> dict[str, Any] | None:
        """The evaluation with temperature 1 on the report's benchmark."""
        return self.evaluations.get(self.benchmark or "", Evaluated()).sampled

    @property
    def is_rl(self) -> bool:
        """Whether the run was trained on rewards."""
        return any("reward" in row for row in self.metrics) or "reward_funcs" in self.config

    @property
    def shows_plans(self) -> bool:
        """Whether anything is known of its plans or its latents."""
        names = ("validity", "grounding", "plan_score", "reconstruction", "latent_use", "stop")
        return any(self.measured(name) is not None for name in names)

    def measured(self, *path: str) -> Any:
        """Returns a value of the greedy evaluation, `measured("accuracy", "estimate")`; None where it is
        absent.
        """
        return dig(self.greedy, *path)

    def measured_on(self, benchmark: str, *path: str) -> Any:
        """Returns a value of the greedy evaluation on any benchmark; None where it is absent."""
        return dig(self.evaluations.get(benchmark, Evaluated()).greedy, *path)

    def measured_sampled(self, *path: str) -> Any:
        """Returns a value of the sampled evaluation; None where it is absent."""
        return dig(self.sampled, *path)

    def recorded(self, *path: str) -> Any:
        """Returns a value of run.json; None where it is absent."""
        return dig(self.record, *path)

    def series(self, key: str) -> list[tuple[float, float]]:
        """Returns (step, value) of every log line that has this metric as a finite number."""
        return [(row["step"], row[key]) for row in self.metrics if is_number(row.get(key))]


def coherence_of(result: Any) -> Any:
    """Returns the coherence in an evaluation that fits its plans: of sentences where they are, else the
    strict.
    """
    natural = dig(result, "coherence", "natural")
    return dig(result, "coherence", "strict") if natural is None else natural


def dig(value: Any, *path: str) -> Any:
    """Returns the value at a path of keys, None where one of them is absent."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def load_runs(entries: Sequence[ReportEntry]) -> list[Run]:
    """Returns all runs of a report, in the order given, compared on the benchmark that they share."""
    # A lone run gets the most prominent colour of the palette, not that of the first baseline.
    lone = len(entries) == 1
    runs = [_load_run(entry, slot=4 if lone else slot) for slot, entry in enumerate(entries)]
    benchmark = main_benchmark([run.evaluations for run in runs])
    for run in runs:
        run.benchmark = benchmark
        if run.greedy is not None:
            run.predictions = _rows(
                run, predictions_file(run.entry.path, run.evaluations[str(benchmark)].stem)
            )
    return runs


def benchmarks_of(runs: Sequence[Run]) -> list[str]:
    """Returns every benchmark that a run of the report was evaluated on greedily, the main one first."""
    names = {name for run in runs for name, evaluated in run.evaluations.items() if evaluated.greedy}
    return sorted(names, key=lambda name: (name != runs[0].benchmark, name))


def _load_run(entry: ReportEntry, slot: int) -> Run:
    """Returns one run; files that are absent leave their attribute empty, broken ones also leave a note."""
    run = Run(entry, slot)
    # Older versions have not masked all that they recorded.
    run.record = masked(read_mapping(entry.path / RECORD, partial(_note, run, RECORD)))
    run.config = masked(read_mapping(entry.path / SETTINGS, partial(_note, run, SETTINGS)))
    run.metrics = _by_step(_rows(run, entry.path / METRICS))
    run.evaluations = by_benchmark(evaluations(entry.path, partial(_note, run)))
    return run


def _note(run: Run, name: str, reason: str) -> None:
    run.notes.append(f"{name} of {run.title} {reason}")


def _rows(run: Run, file: Path) -> list[dict[str, Any]]:
    """Reads the rows of a JSONL file; broken lines are counted in one note."""
    rows, broken = read_rows(file)
    if broken:
        shown = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        lines = "line" if len(broken) == 1 else "lines"
        name = file.relative_to(run.entry.path)
        run.notes.append(f"{name} of {run.title}: skipped {len(broken)} broken {lines} ({shown})")
    return rows


def _by_step(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row per step, in order: a resumed run logs some steps again, and the later line holds."""
    merged: dict[float, dict[str, Any]] = {}
    for row in rows:
        if is_number(row.get("step")):
            merged[row["step"]] = {**merged.get(row["step"], {}), **row}
    return [merged[step] for step in sorted(merged)]


def started_from(run: Run, runs: Sequence[Run]) -> Run | None:
    """Returns the run of the report whose model this one started from."""
    start = run.config.get("model_name_or_path")
    if not isinstance(start, str):
        return None
    directories = {other.entry.path.name: other for other in runs if other is not run}
    return next((directories[part] for part in reversed(Path(start).parts) if part in directories), None)


def rl_pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Returns (before, after) for each run of RL whose start is also in the report."""
    pairs = ((started_from(run, runs), run) for run in runs if run.is_rl)
    return [(before, after) for before, after in pairs if before is not None]


SIGNIFICANT = 0.05

Prediction = dict[str, Any]


class Comparison(NamedTuple):
    """Run b against run a.

    Attributes:
        change: accuracy of b minus that of a.
        differs: whether chance is an unlikely explanation.
        fixed: problems that only b solved, None where the two cannot be paired.
        broken: problems that only a solved, None likewise.
        p_value: of McNemar's test, None likewise.
    """

    change: float
    differs: bool
    fixed: int | None = None
    broken: int | None = None
    p_value: float | None = None


def compare(a: Run, b: Run) -> Comparison | None:
    """Run b against run a; None if one of them was not evaluated."""
    estimates = [run.measured("accuracy", "estimate") for run in (a, b)]
    if not all(map(is_number, estimates)):
        return None
    change = estimates[1] - estimates[0]
    pairs = list(paired(a, b))
    if not pairs:
        return Comparison(change, _lies_below(a, b) or _lies_below(b, a))
    test = mcnemar([bool(row["correct"]) for row, _ in pairs], [bool(row["correct"]) for _, row in pairs])
    return Comparison(change, test.p_value < SIGNIFICANT, test.only_b, test.only_a, test.p_value)


def _lies_below(a: Run, b: Run) -> bool:
    high, low = a.measured("accuracy", "high"), b.measured("accuracy", "low")
    return is_number(high) and is_number(low) and high < low


def paired(a: Run, b: Run) -> Iterator[tuple[Prediction, Prediction]]:
    """Yields the predictions of both for every question that both have, in the order of a."""
    of_b = by_problem(b)
    for problem, row in by_problem(a).items():
        if problem in of_b:
            yield row, of_b[problem]


def by_problem(run: Run) -> dict[tuple[Any, Any], Prediction]:
    """Returns the first prediction for each problem, by its index in the benchmark and its question."""
    rows: dict[tuple[Any, Any], Prediction] = {}
    for row in run.predictions:
        if isinstance(row.get("question"), str) and "correct" in row:
            rows.setdefault((row.get("index"), row["question"]), row)
    return rows
