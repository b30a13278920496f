"""Fewer latents among right answers (arXiv:2511.21581): the stop head learns how long to think."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from latentplan.rewards.accuracy import accuracy


def short_latents(
    prompts: Sequence[str],
    completions: Sequence[str],
    num_latents: Sequence[int] | None = None,
    **columns: Any,
) -> list[float | None]:
    """(mean − n)/(max − min) over the right trajectories of a question, n being the latents used.

    0 for wrong trajectories and where all right ones are equally long, so the values of a question add up to
    0. None without latents or without a reference answer.
    """
    values, _ = _relative(prompts, completions, num_latents, columns)
    return values


def short_latents_if_solved(
    prompts: Sequence[str],
    completions: Sequence[str],
    num_latents: Sequence[int] | None = None,
    **columns: Any,
) -> list[float | None]:
    """As `short_latents` where every trajectory of a question is right; elsewhere *longer* ones earn it."""
    values, solved = _relative(prompts, completions, num_latents, columns)
    return [
        None if value is None else value if solved[prompt] else -value
        for prompt, value in zip(prompts, values, strict=True)
    ]


def _relative(
    prompts: Sequence[str],
    completions: Sequence[str],
    num_latents: Sequence[int] | None,
    columns: dict[str, Any],
) -> tuple[list[float | None], dict[str, bool]]:
    """The values of `short_latents`, and whether each prompt was answered rightly by all its trajectories."""
    right = accuracy(prompts, completions, **columns)
    if num_latents is None:
        return [None] * len(completions), dict.fromkeys(prompts, False)
    lengths, solved = defaultdict(list), dict.fromkeys(prompts, True)
    for prompt, is_right, length in zip(prompts, right, num_latents, strict=True):
        solved[prompt] = solved[prompt] and is_right == 1.0
        if is_right:
            lengths[prompt].append(length)
    values: list[float | None] = []
    for prompt, is_right, length in zip(prompts, right, num_latents, strict=True):
        of_group = lengths[prompt]
        if is_right is None or not is_right or max(of_group) == min(of_group):
            values.append(None if is_right is None else 0.0)
        else:
            values.append((sum(of_group) / len(of_group) - length) / (max(of_group) - min(of_group)))
    return values, solved
