"""What a reward is: a plain function over lists, as in TRL, so that a TRL reward function works unchanged.

    def short(prompts, completions, **kwargs):
        return [1.0 if len(text) < 20 else 0.0 for text in completions]

It is called with keywords only, and gets every column of the dataset (`answer`, `question`, `modulus`, ...),
the whole `Problem` (`problems`), and what only a latent rollout knows (`decoded_steps`, `num_latents`,
`finished`), one entry per trajectory. None (or NaN) for a trajectory says that the reward does not apply to
it; one that no reward applies to enters no mean of its group and is not learned from. Infinite rewards are
refused.

A reward with settings of its own has a parameter `settings`, whose default is an instance of a dataclass:

    def short(completions, settings=Short(), **kwargs):
        return [1.0 if len(text) < settings.most else 0.0 for text in completions]

Recipes set them as `reward_settings: {package.module:short: {most: 30}}`. A reward that ships with latentplan
is a function in a file of this folder with a name, see `named_reward`; nothing else lists it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from math import prod
from typing import Any, TypeVar

from latentplan.problems.answers import AnswerKind, kind_of
from latentplan.problems.problem import Problem

Reward = Callable[..., Sequence[float | None]]
"""`f(prompts, completions, **columns)`: one reward, or None, per trajectory."""

_Entry = TypeVar("_Entry")
_Reward = TypeVar("_Reward", bound=Reward)


def named_reward(name: str) -> Callable[[_Reward], _Reward]:
    """Gives a reward of this folder the name by which recipes know it: `@named_reward("validity")`."""

    def give(reward: _Reward) -> _Reward:
        reward.reward_name = name  # type: ignore[attr-defined]
        return reward

    return give


def settings_kind(reward: Reward) -> type | None:
    """Returns the dataclass of a reward's settings; None where it has none."""
    try:
        parameter = inspect.signature(reward).parameters.get("settings")
    except (TypeError, ValueError):  # some callables that are written in C have no signature
        return None
    default = None if parameter is None else parameter.default
    return type(default) if is_dataclass(default) and not isinstance(default, type) else None


def column(values: Sequence[_Entry] | None, completions: Sequence[Any]) -> Sequence[_Entry | None]:
    """Returns a column of one entry per completion: None all through where it was not given."""
    return [None] * len(completions) if values is None else values


def answer_kinds(
    completions: Sequence[Any],
    problems: Sequence[Problem] | None = None,
    answer: Sequence[str | None] | None = None,
) -> list[AnswerKind]:
    """Returns the kind of answer of each trajectory: its problem's, else the one that its reference tells."""
    if problems is not None:
        return [problem.kind for problem in problems]
    return [kind_of(reference) for reference in column(answer, completions)]


def product(*rewards: Sequence[float | None]) -> list[float | None]:
    """Returns the product of several rewards per trajectory; None where one of them does not apply."""
    return [
        None if None in values else prod(value for value in values if value is not None)
        for values in zip(*rewards, strict=True)
    ]


def plan_columns(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None,
    question: Sequence[str] | None,
    modulus: Sequence[int | None] | None,
    answer: Sequence[str | None] | None,
    problems: Sequence[Problem] | None,
) -> Iterator[tuple[str, Sequence[str] | None, str, int | None, AnswerKind]]:
    """Yields what a plan is read with: completion, decoded steps, question, modulus and kind of answer."""
    return zip(
        completions,
        column(decoded_steps, completions),
        prompts if question is None else question,
        column(modulus, completions),
        answer_kinds(completions, problems, answer),
        strict=True,
    )
