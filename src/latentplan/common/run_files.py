"""What lies where in a run directory and in a model folder."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

MODEL_CONFIG = "config.json"
MODEL_TYPE = "latent_reasoner"
"""`model_type` in the configuration of a saved `LatentReasoner`."""


def is_latent_checkpoint(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a saved `LatentReasoner` (rather than a plain language model)."""
    config = Path(folder) / MODEL_CONFIG
    if not config.is_file():
        return False
    return f'"{MODEL_TYPE}"' in config.read_text(encoding="utf-8", errors="replace")


def run_of(model: Path) -> Path | None:
    """The run directory that a model belongs to."""
    return next((each for each in (model, model.parent) if (each / "config.yaml").is_file()), None)


def evaluation_folder(model: Path) -> Path:
    """`evaluation/` in the run that a model belongs to, or in the model folder without a run around it."""
    inside_run = model.name == "model" and is_latent_checkpoint(model)
    return (model.parent if inside_run else model) / "evaluation"


def as_name(text: str) -> str:
    """Returns a text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", text)


def file_stem(
    label: str, temperature: float, latent_temperature: float, num_generations: int, seed: int
) -> str:
    """The benchmark's name and, unless greedy, how it was sampled, so that neither replaces the other."""
    stem = as_name(label)
    if temperature == latent_temperature == 0:
        return stem
    temperatures = f"t{temperature:g}-l{latent_temperature:g}"
    return f"{stem}-{temperatures}-n{num_generations}-seed{seed}"


def is_evaluated(file: Path, model: Path, num_problems: int) -> bool:
    """Whether there is a result of this model, on as many problems."""
    try:
        newer = file.stat().st_mtime >= model.stat().st_mtime
        return newer and json.loads(file.read_text())["num_problems"] == num_problems
    except (OSError, ValueError, KeyError, TypeError):
        return False
