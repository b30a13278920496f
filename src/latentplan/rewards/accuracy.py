"""Is the answer right?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

from latentplan.problems.problem import Problem
from latentplan.rewards.contract import Reward, answer_kinds, column, product


def accuracy(
    prompts: Sequence[str],
    completions: Sequence[str],
    answer: Sequence[str | None] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """1.0 where the completion gives the reference `answer`, as its kind of answer decides; else 0.0.

    None where there is no reference. Reading is strict (`AnswerKind.extract`): a bare number earns nothing.
    """
    kinds = answer_kinds(completions, problems, answer)
    return [
        None if reference is None else float(kind.is_correct(completion, reference))
        for completion, reference, kind in zip(completions, column(answer, completions), kinds, strict=True)
    ]


def when_correct(reward: Reward) -> Reward:
    """`reward` multiplied by `accuracy`: ATP-Latent pays for coherence only on the way to a right answer.

    None where either of the two does not apply. See arXiv:2601.21598, and `combine_rewards` for the whole
    sum.
    """

    @wraps(reward)
    def rewarded(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        values = reward(prompts=prompts, completions=completions, **columns)
        return product(values, accuracy(prompts, completions, **columns))

    rewarded.__name__ = f"{reward.__name__}_if_correct"
    return rewarded
