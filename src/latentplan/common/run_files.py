"""The layout of a run directory and a model folder, and readers that forgive what is missing or broken.

runs/NAME/  config.yaml  run.json  metrics.jsonl  samples.jsonl  checkpoint-N/  model/  evaluation/
model/      config.json  model*.safetensors  step_decoder/  README.md
evaluation/ STEM.json (an evaluation's result)  STEM.jsonl (its predictions)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

RECORD = "run.json"
"""What a run was: its command, data, versions, costs and status."""
SETTINGS = "config.yaml"
"""Its resolved settings."""
METRICS = "metrics.jsonl"
"""A row for each optimisation step that was logged."""
SAMPLES = "samples.jsonl"
"""Trajectories sampled on the way."""
CHECKPOINTS = "checkpoint-*"
"""Pattern of the folders that training resumes from."""
MODEL = "model"
"""The trained model."""
EVALUATION = "evaluation"
"""What `latentplan evaluate` measured."""

MODEL_CONFIG = "config.json"
MODEL_TYPE = "latent_reasoner"
"""`model_type` in the configuration of a saved `LatentReasoner`."""
STEP_DECODER = "step_decoder"
"""The step decoder's folder in the model's."""
MODEL_CARD = "README.md"

FINISHED = "finished"
"""The status of a run that has been completed."""


def is_latent_checkpoint(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a saved `LatentReasoner` (rather than a plain language model)."""
    config = Path(folder) / MODEL_CONFIG
    if not config.is_file():
        return False
    return f'"{MODEL_TYPE}"' in config.read_text(encoding="utf-8", errors="replace")


def model_folders(folder: str | os.PathLike) -> tuple[Path, Path]:
    """Returns where the model may lie that a path names: in the folder itself, or in that of a run."""
    return Path(folder), Path(folder) / MODEL


def model_in(folder: str | os.PathLike) -> Path | None:
    """Finds the `LatentReasoner` in a model folder or a run; None where neither holds one."""
    return next((each for each in model_folders(folder) if is_latent_checkpoint(each)), None)


def run_of(model: Path, holding: str = SETTINGS) -> Path | None:
    """Finds the run directory that a model belongs to, by a file that it must hold."""
    folders = (model, model.parent, model.resolve().parent)
    return next((each for each in folders if (each / holding).is_file()), None)


def without_model(path: Path) -> Path:
    """Drops `/model` from the end of a path, whether or not anything lies there."""
    return path.parent if path.name == MODEL else path


def home_of(model: Path) -> Path:
    """Returns the run that a model folder lies in; the folder itself if it is a run, or lies in none."""
    path = model if model.name == MODEL else model.resolve()
    return path.parent if path.name == MODEL and is_latent_checkpoint(path) else model


def results_folder(model: Path, kind: str = EVALUATION) -> Path:
    """Returns the folder of one kind of results, in the run of a model or, without a run, in its folder."""
    return home_of(model) / kind


def runs_in(folder: Path) -> list[Path]:
    """Finds the folder itself if it is a run, else the runs right below it, the earliest first."""
    if (folder / RECORD).exists():
        return [folder]
    return sorted((record.parent for record in folder.glob(f"*/{RECORD}")), key=_created)


def _created(run: Path) -> tuple[str, str]:
    return str(read_record(run).get("created", "")), run.name


def as_name(text: str) -> str:
    """Returns a text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", text)


def file_stem(
    label: str, temperature: float, latent_temperature: float, num_generations: int, seed: int
) -> str:
    """Names a result: the benchmark and, unless greedy, how it was sampled, so that none replaces another."""
    stem = as_name(label)
    if temperature == latent_temperature == 0:
        return stem
    temperatures = f"t{temperature:g}-l{latent_temperature:g}"
    return f"{stem}-{temperatures}-n{num_generations}-seed{seed}"


def read_mapping(file: Path, note: Callable[[str], None] = lambda reason: None) -> dict[str, Any]:
    """Reads a JSON or YAML file that holds a mapping; returns an empty one where there is none.

    Args:
        file: told apart by its suffix.
        note: called with what is wrong with a file that exists, as the rest of a sentence about it.
    """
    if not file.is_file():
        return {}
    parse = yaml.safe_load if file.suffix in (".yaml", ".yml") else json.loads
    try:
        value = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        note(f"cannot be read: {str(error).splitlines()[0]}")
        return {}
    if isinstance(value, dict):
        return value
    note("holds no mapping")
    return {}


class Rows(NamedTuple):
    """The rows of a JSONL file, and the numbers (from 1) of the lines that hold none."""

    rows: list[dict[str, Any]]
    broken: list[int]


def read_rows(file: Path) -> Rows:
    """Reads a JSONL file of mappings; passes over broken lines, such as the last one of a killed run."""
    found = Rows([], [])
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            row = _row(line)
            found.broken.append(number) if row is None else found.rows.append(row)
    return found


def _lines(file: Path) -> list[str]:
    """Reads the lines of a JSONL file; none where it is no regular file or cannot be read.

    A line ends with a line feed alone: `splitlines` would also cut at U+2028, which JSON leaves in texts.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    except OSError:
        return []
    return text.removesuffix("\n").split("\n") if text else []


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def read_record(run: Path) -> dict[str, Any]:
    """Reads what a run was (`run.json`); empty where that cannot be read."""
    return read_mapping(run / RECORD)


def read_settings(run: Path) -> dict[str, Any]:
    """Reads a run's settings (`config.yaml`); empty where they cannot be read."""
    return read_mapping(run / SETTINGS)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Reads the rows that a run has logged (`metrics.jsonl`); empty where there are none."""
    return read_rows(run / METRICS).rows


def last_step(run: Path) -> int:
    """Returns the optimisation step that was logged last; 0 before the first."""
    try:
        return int(json.loads(_lines(run / METRICS)[-1])["step"])
    except (IndexError, ValueError, KeyError, TypeError):
        return 0


def has_trained(run: Path) -> bool:
    """Whether a run has anything to lose: one that failed at its start may change its settings."""
    metrics = run / METRICS
    logged = metrics.is_file() and metrics.stat().st_size > 0
    anything = logged or (run / MODEL).is_dir() or any(run.glob(CHECKPOINTS))
    return anything and (run / SETTINGS).is_file()


def is_finished(run: Path, record: Mapping[str, Any] | None = None) -> bool:
    """Whether a run has been completed; `record` is what its file holds, where that has been read already."""
    record = read_record(run) if record is None else record
    return record.get("status") == FINISHED and (run / MODEL).is_dir()


def trained_model(run: Path) -> Path:
    """Returns the file that appears when a run's model is whole, for its existence and its time."""
    return run / MODEL / MODEL_CONFIG


def result_of(file: Path, model: Path) -> dict[str, Any]:
    """Reads an evaluation's result; empty where there is none, or the model has changed after it.

    Args:
        file: `STEM.json`.
        model: as `trained_model` returns it.
    """
    try:
        newer = file.stat().st_mtime >= model.stat().st_mtime
    except OSError:
        return {}
    return read_mapping(file) if newer else {}


def evaluations(
    run: Path, note: Callable[[str, str], None] = lambda name, reason: None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads a run's results by their stems, those called `test…` before others.

    Args:
        run: the run directory.
        note: called with the path inside the run and what is wrong with a file that cannot be read.
    """
    files = (run / EVALUATION).glob("*.json")
    for file in sorted(files, key=lambda file: (not file.name.startswith("test"), file.name)):
        name = f"{EVALUATION}/{file.name}"
        result = read_mapping(file, lambda reason, name=name: note(name, reason))  # type: ignore[misc]
        if result:
            yield file.stem, result


def result_file(run: Path, stem: str) -> Path:
    """Returns the file of a result."""
    return run / EVALUATION / f"{stem}.json"


def predictions_file(run: Path, stem: str) -> Path:
    """Returns the file of the predictions behind a result."""
    return run / EVALUATION / f"{stem}.jsonl"
