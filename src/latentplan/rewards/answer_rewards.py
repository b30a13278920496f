"""Rewards of the answer: whether it is right, whether it is well formed, and how few latents it took.

Fewer latents among right answers (arXiv:2511.21581) teach the stop head how long a chain has to be.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import wraps
from typing import Any

from latentplan.problems.answers import NUMBER, AnswerKind, normalise_answer, parse_number
from latentplan.problems.problem import Problem
from latentplan.rewards.contract import Reward, answer_kinds, column, named_reward, product

_MARKER = re.compile(r"#{3,}")


@named_reward("accuracy")
def accuracy(
    prompts: Sequence[str],
    completions: Sequence[str],
    answer: Sequence[str | None] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Returns 1.0 where the completion gives the reference `answer`, as its kind decides; else 0.0.

    None where there is no reference. Reading is strict (`AnswerKind.extract`): a bare number earns nothing.
    """
    kinds = answer_kinds(completions, problems, answer)
    return [
        None if reference is None else float(kind.is_correct(completion, reference))
        for completion, reference, kind in zip(completions, column(answer, completions), kinds, strict=True)
    ]


def when_correct(reward: Reward) -> Reward:
    """Returns `reward` times `accuracy`, called `{reward}_if_correct`; None where one of them does not apply.

    ATP-Latent (arXiv:2601.21598) rewards the coherence of a plan that leads to a right answer alone.
    """

    @wraps(reward)
    def rewarded(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        values = reward(prompts=prompts, completions=completions, **columns)
        return product(values, accuracy(prompts, completions, **columns))

    rewarded.__name__ = f"{reward.__name__}_if_correct"
    return named_reward(f"{getattr(reward, 'reward_name', reward.__name__)}_if_correct")(rewarded)


@named_reward("format")
def format_reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    finished: Sequence[bool] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Returns 1.0 where the completion has one marker, `### `, with an answer, and was ended; else 0.0.

    `finished` says of each trajectory whether the end-of-sequence token came before the length limit; without
    it, every trajectory passes for ended.
    """
    kinds = answer_kinds(completions, problems)
    return [
        float(ended is not False and is_well_formed(completion, kind))
        for completion, ended, kind in zip(completions, column(finished, completions), kinds, strict=True)
    ]


def is_well_formed(completion: str, kind: AnswerKind = NUMBER) -> bool:
    """Tells whether the marker occurs exactly once and is followed by a number or a word."""
    if len(_MARKER.findall(completion)) != 1:
        return False
    answer = kind.extract(completion)
    return answer is not None and (parse_number(answer) is not None or bool(normalise_answer(answer)))


@named_reward("short_latents")
def short_latents(
    prompts: Sequence[str],
    completions: Sequence[str],
    num_latents: Sequence[int] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Returns (mean − n)/(max − min) over the right trajectories of a question, n being the latents used.

    0 for wrong trajectories and where all right ones are equally long, so the values of a question add up to
    0. None without latents or without a reference answer.
    """
    values, _ = _relative(prompts, completions, num_latents, columns)
    return values


@named_reward("short_latents_if_solved")
def short_latents_if_solved(
    prompts: Sequence[str],
    completions: Sequence[str],
    num_latents: Sequence[int] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Returns `short_latents` where every trajectory of a question is right, elsewhere its negative."""
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
    """Returns `short_latents`, and of each prompt whether all its trajectories are right."""
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
