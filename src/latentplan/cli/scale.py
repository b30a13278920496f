"""How long a recipe trains, and the same recipe made shorter or longer; stages keep their proportions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

FEWEST_PROBLEMS = 2000
"""Training problems that are made even for the shortest look, where the recipe has as many."""


def count_steps(settings: Mapping[str, Any]) -> int | None:
    """Optimisation steps of a recipe; None where it counts epochs or says nothing."""
    if "max_steps" in settings:
        return int(settings["max_steps"])
    steps = settings.get("curriculum_steps")
    if steps is None:
        return None
    if isinstance(steps, list) and len(steps) > 1:
        return sum(steps)
    stages = settings.get("curriculum_stages") or [0]
    return (steps[0] if isinstance(steps, list) else steps) * len(stages)


def scaled_settings(settings: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """What changes in a recipe when it takes `scale` as many optimisation steps.

    Below 1 there are also fewer generated training problems.
    """
    if scale == 1.0:
        return {}
    changed: dict[str, Any] = {"logging_steps": 1}
    if scale < 1 and settings.get("dataset_size"):
        size = settings["dataset_size"]
        changed["dataset_size"] = min(size, max(FEWEST_PROBLEMS, round(size * scale)))
    if "max_steps" in settings:
        steps = max(1, round(settings["max_steps"] * scale))
        return {**changed, "max_steps": steps, "save_steps": steps}
    if "curriculum_epochs" in settings:
        epochs = settings["curriculum_epochs"]
        epochs = epochs if isinstance(epochs, list) else [epochs]
        return {**changed, "curriculum_epochs": [passes * scale for passes in epochs]}
    lengths = settings.get("curriculum_steps", 1000)
    lengths = lengths if isinstance(lengths, list) else [lengths]
    return {**changed, "curriculum_steps": [max(1, round(length * scale)) for length in lengths]}


def proportional(lengths: Sequence[float], total: int) -> list[int]:
    """Whole numbers of the proportions of `lengths`, each at least 1, that add up to `total`.

    Raises:
        ValueError: there are more stages than `total`.
    """
    if total < len(lengths):
        raise ValueError(f"{total} steps are too few for {len(lengths)} stages")
    whole = sum(lengths)
    ends = [round(total * reached / whole) for reached in accumulate(lengths, initial=0.0)]
    shares = [max(1, after - before) for before, after in pairwise(ends)]
    while sum(shares) > total:
        shares[shares.index(max(shares))] -= 1
    return shares
