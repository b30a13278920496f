"""The problems that a run was made for: what a model is looked at with where no benchmark is named."""

from __future__ import annotations

from pathlib import Path

import yaml

from latentplan.problems.minigsm import PRESETS


def own_preset(run: Path | None) -> str:
    """`minigsm:PRESET` that a run was trained on.

    Raises:
        ValueError: there is no run around the model, or it was trained on something else.
    """
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) if run else None
    except (OSError, yaml.YAMLError):
        config = None
    if isinstance(config, dict) and config.get("dataset_name") == ["minigsm"]:
        preset = config.get("dataset_config") or "clock"  # as training takes it
        if preset in PRESETS:
            return f"minigsm:{preset}"
    raise ValueError("which problems? name a --benchmark: the model belongs to no run on a minigsm preset")


def run_of(model: Path) -> Path | None:
    """The run directory that a model belongs to."""
    return next((each for each in (model, model.parent) if (each / "config.yaml").is_file()), None)
