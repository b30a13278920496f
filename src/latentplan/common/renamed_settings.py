"""Other names of settings: old ones, which work for one version more, with a notice, and those of TRL."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

_ESTIMATORS: dict[str, dict[str, Any]] = {
    "score_function": {"objective": "grpo", "latent_gradient": "score_function"},
    "pathwise": {"objective": "grpo", "latent_gradient": "pathwise"},
    "answers": {"objective": "grpo", "latent_gradient": "none"},
    "value": {"objective": "latent_value", "latent_gradient": "pathwise"},
    "likelihood": {
        "objective": "reference_likelihood",
        "latent_gradient": "pathwise",
        "maximize": "likelihood",
    },
    "log_likelihood": {
        "objective": "reference_likelihood",
        "latent_gradient": "pathwise",
        "maximize": "log_likelihood",
    },
}
_OF_TRL: dict[str, dict[str, dict[str, Any]]] = {
    "importance_sampling_level": {"token": {"objective": "grpo"}, "sequence": {"objective": "gspo"}},
}
RENAMED: dict[str, dict[str, dict[str, Any]]] = {"estimator": _ESTIMATORS, **_OF_TRL}
"""What each value of an old setting, or of one of TRL's, is called now."""
_FORMER_DEFAULTS: dict[str, dict[str, Any]] = {
    "grpo": {"likelihood_weight": 0.0},
    "latent_value": {
        "value_learning_rate": 1e-4,
        "value_warmup_steps": 0,
        "value_positive_weight": 20.0,
        "value_states": "latents",
        "value_loss_trains_policy": False,
        "value_head_sizes": None,
        "value_head_activation": "gelu",
    },
}
"""By objective, what every RL run saved beside its estimator and only runs of that objective have now."""


def renamed_settings(settings: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
    """Returns the settings by their present names; where both names are there, the present one counts.

    Args:
        settings: by name.
        where: what a user has written them in, which the notice about old names says; None: a record of a
            run, which needs none.

    Raises:
        ValueError: a setting of another name has a value that it never had; a record keeps it.
    """
    found: dict[str, Any] = {}
    for old in settings.keys() & RENAMED.keys():
        value = str(settings[old])
        new = RENAMED[old].get(value)
        if where is None:
            found.update({old: settings[old]} if new is None else new)
            continue
        if new is None:
            raise ValueError(f"{where}: {old} must be one of {sorted(RENAMED[old])}, got {value!r}")
        found.update(new)
        if old not in _OF_TRL:
            names = ", ".join(f"{name}: {each}" for name, each in new.items())
            _notice(where, f"{old}: {value}", names)
    kept = {name: value for name, value in settings.items() if name not in RENAMED}
    if "estimator" in settings:
        for objective, defaults in _FORMER_DEFAULTS.items():
            if objective != found.get("objective"):
                kept = {name: value for name, value in kept.items() if (name, value) not in defaults.items()}
    return {**found, **kept}


@cache
def _notice(where: str, old: str, new: str) -> None:
    """Says once what an old setting is called now."""
    logger.warning("%s: %s is %s now; the old name goes with the next version", where, old, new)
