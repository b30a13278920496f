"""The data of the pictures as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from latentplan.common.files import write_atomically
from latentplan.evaluation.latent_table import Clustering, LatentTable
from latentplan.report.pictures.chains import sigma_curve, stop_curves
from latentplan.report.pictures.labels import LABELS
from latentplan.report.pictures.rewards import reward_parts
from latentplan.report.runs import Run


def write_latents(
    file: Path, models: Mapping[str, LatentTable], points: Mapping[str, Sequence[np.ndarray]]
) -> Path:
    """A line for each latent step: its labels, σ, and its place in each projection."""
    axes = [f"{name}_{axis}" for name in points for axis in "xy"]
    head = ["model", "problem", "step", "text", *(name for name in LABELS if name != "step"), "sigma", *axes]
    lines = []
    for place, (title, table) in enumerate(models.items()):
        for index, row in enumerate(table.rows):
            labels = [label(row) for name, label in LABELS.items() if name != "step"]
            at = [f"{value:.4g}" for parts in points.values() for value in parts[place][index]]
            lines.append([title, row.problem, row.step, row.text, *labels, row.sigma, *at])
    return _csv(file, head, lines)


def write_clustering(file: Path, measured: Mapping[str, Mapping[str, Clustering | None]]) -> Path:
    """A line for each model and label."""
    names = [item.name for item in fields(Clustering)]
    lines = [
        [title, label, *(getattr(found, name) for name in names)]
        for title, by_label in measured.items()
        for label, found in by_label.items()
        if found is not None
    ]
    return _csv(file, ["model", "label", *names], lines)


def write_stops(file: Path, models: Mapping[str, LatentTable]) -> Path:
    """A line for each point of the curves."""
    lines = [
        [title, needed, *point]
        for title, table in models.items()
        for needed, curve in stop_curves(table.stops).items()
        for point in curve
    ]
    head = ["model", "labelled_steps", "step", "probability", "quantile_10", "quantile_90", "chains"]
    return _csv(file, head, lines)


def write_sigma(file: Path, models: Mapping[str, LatentTable]) -> Path:
    """A line for each model and step."""
    lines = [[title, *point] for title, table in models.items() for point in sigma_curve(table)]
    return _csv(
        file, ["model", "step", "sigma", "quantile_10", "quantile_90", "spread_of_mean", "chains"], lines
    )


def write_rewards(file: Path, runs: Sequence[Run]) -> Path:
    """A line for each run, metric and logged step."""
    lines = [
        [run.title, metric, step, value]
        for run in runs
        for metric in ("reward", "reward_std", *reward_parts(run))
        for step, value in run.series(metric)
    ]
    return _csv(file, ["model", "metric", "step", "value"], lines)


def write_plans(file: Path, models: Mapping[str, LatentTable]) -> Path:
    """Every problem with its answer and plan, by model."""
    rows = {title: [asdict(solved) for solved in table.problems] for title, table in models.items()}
    return write_atomically(file, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


def _csv(file: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_shown(value) for value in line] for line in lines)
    return write_atomically(file, text.getvalue())


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
