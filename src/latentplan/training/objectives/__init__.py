"""Objectives of RL by name: each file of this folder holds some; a user's own are `package.module:Class`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from functools import cache
from typing import Any

from latentplan.common.plugin_settings import Plugin, owner_of
from latentplan.common.plugins import import_named, modules_of, names_own_code, settings_from
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.training.configs import OBJECTIVE, GRPOConfig
from latentplan.training.objectives.objective import RLObjective


@cache
def objectives() -> dict[str, type[RLObjective]]:
    """Returns the objectives of this folder by name."""
    found = [each for module in modules_of(__name__) for each in vars(module).values()]
    classes = [each for each in found if isinstance(each, type) and issubclass(each, RLObjective)]
    return {each.name: each for each in classes if "name" in vars(each)}


def get_objective(name: str) -> type[RLObjective]:
    """Returns the objective called `name`: one of `objectives`, or `package.module:Class`.

    Raises:
        ValueError: there is no such name, module or class; the message lists what there is.
    """
    if name in objectives():
        return objectives()[name]
    found = import_named(name, "objective", source=None) if names_own_code(name) else None
    if not (isinstance(found, type) and issubclass(found, RLObjective) and hasattr(found, "name")):
        raise ValueError(
            f"objective must be one of {sorted(objectives())}, or a subclass of RLObjective with a name, as "
            f"'package.module:Class', got {name!r}"
        )
    return found


def make_objective(
    config: GRPOConfig, reasoner: LatentReasoner, record: Callable[..., None] = lambda **metrics: None
) -> RLObjective:
    """Makes the objective that a run's settings name; arguments and errors as of `RLObjective`."""
    refuse_foreign_settings(config.objective, config.objective_settings or {})
    return get_objective(config.objective)(config, reasoner, record)


def complete_settings(config: GRPOConfig) -> None:
    """Fills in what the objective decides: its own settings' defaults, and its latent gradient estimator.

    Raises:
        ValueError: there is no such objective, or it has no such setting.
    """
    kind, given = get_objective(config.objective), config.objective_settings or {}
    refuse_foreign_settings(config.objective, given)
    own: Any = settings_from(kind.settings_class, given, f"objective {config.objective}")
    config.objective_settings = asdict(own)
    config.latent_gradient = kind.latent_gradient_of(config)


def own_settings(name: str) -> list[str]:
    """Lists the settings that are an objective's own."""
    return [each.name for each in fields(get_objective(name).settings_class)]


def refuse_foreign_settings(objective: str, names: Iterable[str]) -> None:
    """Raises ValueError where one of the settings belongs to other objectives than this run's."""
    chosen = Plugin("objective", objective, get_objective(objective).settings_class)
    for name in names:
        owner = None if name in chosen.names else owner_of(name, [OBJECTIVE], [chosen])
        if owner:
            raise ValueError(owner)
