"""`summary.json`: the few numbers of a report that a program may want.

{"seconds": 1180.2, "reconstruction": 0.981,
 "methods": {"cot": {"accuracy": 0.998, "interval": [0.992, 0.999], "accuracy_sampled": 0.995,
                     "tokens": 20.5, "coherence": 0.99, "seconds": 64.1}, ...}}

All of it is measured on the main benchmark. Where there are several, one more key has the results on each:

{"benchmarks": {"cot": {"gsm8k": {"accuracy": 0.24, "interval": [0.22, 0.26], "tokens": 20.5}, ...}, ...}}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentplan.common.files import write_atomically
from latentplan.common.run_files import read_mapping
from latentplan.report.run_reader import (
    ReportEntry,
    Run,
    benchmarks_of,
    coherence_of,
    dig,
    load_runs,
    rl_pairs,
)


def summarise(parent: Path, entries: Sequence[ReportEntry], seconds: float | None = None) -> dict[str, Any]:
    """Computes what `summary.json` holds; what was not measured is None.

    Args:
        parent: the directory that the entries' paths are relative to, unless they are absolute.
        entries: the runs, in order.
        seconds: wall time of the whole job.
    """
    return summarise_runs(load_runs([entry_under(parent, entry) for entry in entries]), seconds)


def summarise_runs(runs: Sequence[Run], seconds: float | None = None) -> dict[str, Any]:
    """Summarises runs that have been read already."""
    benchmarks = benchmarks_of(runs)
    summary = {
        "seconds": seconds,
        "reconstruction": _reconstruction(runs),
        "methods": {run.name: _method(run) for run in runs},
    }
    if len(benchmarks) > 1:
        summary["benchmarks"] = {run.name: _by_benchmark(run, benchmarks) for run in runs}
    return summary


SUMMARY = "summary.json"


def entry_under(parent: Path, entry: ReportEntry) -> ReportEntry:
    """Returns the entry with its path resolved: as given if it exists, else below `parent`."""
    path = entry.path if entry.path.is_absolute() or entry.path.exists() else parent / entry.path
    return ReportEntry(entry.name, entry.title, path)


def write_summary(parent: Path, summary: dict[str, Any]) -> Path:
    """Writes `summary.json` into `parent`."""
    return write_atomically(parent / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def read_summary(parent: Path) -> dict[str, Any]:
    """Reads the summary in `parent`; empty where there is none."""
    return read_mapping(parent / SUMMARY)


def _method(run: Run) -> dict[str, Any]:
    return {
        "accuracy": run.measured("accuracy", "estimate"),
        "interval": _interval(run.measured("accuracy")),
        "accuracy_sampled": run.measured_sampled("accuracy", "estimate"),
        "tokens": run.measured("tokens", "mean"),
        "coherence": coherence_of(run.greedy),
        "seconds": run.recorded("seconds"),
    }


def _interval(accuracy: Any) -> list[float] | None:
    low, high = dig(accuracy, "low"), dig(accuracy, "high")
    return None if low is None or high is None else [low, high]


def _by_benchmark(run: Run, benchmarks: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "accuracy": run.measured_on(name, "accuracy", "estimate"),
            "interval": _interval(run.measured_on(name, "accuracy")),
            "tokens": run.measured_on(name, "tokens", "mean"),
        }
        for name in benchmarks
        if run.measured_on(name, "accuracy") is not None
    }


def _reconstruction(runs: Sequence[Run]) -> float | None:
    """Returns that of the supervised model: where RL started, else of the last that has a step decoder.

    Of several starts the most accurate, whatever their order.
    """
    supervised = [run for run in runs if not run.is_rl]
    starts = [before for before, _ in rl_pairs(runs)]
    starts.sort(key=lambda run: run.measured("accuracy", "estimate") or 0.0, reverse=True)
    candidates = starts + supervised[::-1]
    measured = (run.measured("reconstruction", "teacher_exact") for run in candidates)
    return next((value for value in measured if value is not None), None)
