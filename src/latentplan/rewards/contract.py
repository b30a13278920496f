"""What a reward is: a plain function over lists, as in TRL, so that a TRL reward function works unchanged.

    def short(prompts, completions, **kwargs):
        return [1.0 if len(text) < 20 else 0.0 for text in completions]

It is called with keywords only, and gets every column of the dataset (`answer`, `question`, `modulus`, ...),
the whole `Problem` (`problems`), and what only a latent rollout knows (`decoded_steps`, `num_latents`,
`finished`), one entry per trajectory. None (or NaN) for a trajectory says that the reward does not apply to
it; one that no reward applies to enters no mean of its group and is not learned from. Infinite rewards are
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

from latentplan.problems.answers import AnswerKind, kind_of
from latentplan.problems.problem import Problem

Reward = Callable[..., Sequence[float | None]]
"""`f(prompts, completions, **columns)`: one reward, or None, per trajectory."""

_Entry = TypeVar("_Entry")


def column(values: Sequence[_Entry] | None, completions: Sequence[Any]) -> Sequence[_Entry | None]:
    """A column of one entry per completion; a column that was not given is None all through."""
    return [None] * len(completions) if values is None else values


def answer_kinds(
    completions: Sequence[Any],
    problems: Sequence[Problem] | None = None,
    answer: Sequence[str | None] | None = None,
) -> list[AnswerKind]:
    """The kind of answer of each trajectory: its problem's, or else the one that its reference tells."""
    if problems is not None:
        return [problem.kind for problem in problems]
    return [kind_of(reference) for reference in column(answer, completions)]


def product(*rewards: Sequence[float | None]) -> list[float | None]:
    """The product of several rewards per trajectory; None where one of them does not apply."""
    return [
        None if None in values else prod(value for value in values if value is not None)
        for values in zip(*rewards, strict=True)
    ]
