"""The equations that a decoded step holds: one, or several where it stands for the rest of a chain.

A chain longer than the K latent steps puts its rest into the last of them, so what is decoded there may be
`<<3+4=7>><<7*2=14>>`, with the step separator between. Every score of a plan reads its steps here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache, wraps
from typing import Any

from latentplan.problems.answers import AnswerKind
from latentplan.problems.equations import Equation, find_equations, parse_equation
from latentplan.problems.problem import Problem
from latentplan.rewards.contract import Reward, answer_kinds, column


@lru_cache(maxsize=65536)
def equations_of(step: str) -> tuple[Equation, ...]:
    """The equation that a step consists of, else every readable one in double angle brackets, in order.

    What else the step says is not asked. Without a readable equation there are none: the step cannot be read.
    """
    equation = parse_equation(step)
    return tuple(find_equations(step)) if equation is None else (equation,)


def in_sentences(steps: Iterable[str]) -> bool:
    """Whether most of these steps hold no equation in `<<...>>`, nor are one: chains in sentences do."""
    readable = [bool(equations_of(step)) for step in steps]
    return bool(readable) and 2 * sum(readable) < len(readable)


def equations_apply(kind: AnswerKind, steps: Iterable[str]) -> bool:
    """Whether scores of equations say anything of such a chain.

    They do where an equation can have the answer as its result, and for chains that are written in equations,
    `<<...>>`. Of sentences that lead to a word or a letter they would say 0, whatever these are worth.
    """
    return kind.computed or any("<<" in step for step in steps)


def of_equations(reward: Reward) -> Reward:
    """`reward` where `equations_apply` to the labelled chain, or to the decoded one without it; else None."""

    @wraps(reward)
    def applied(
        prompts: Sequence[str],
        completions: Sequence[str],
        decoded_steps: Sequence[Sequence[str] | None] | None = None,
        answer: Sequence[str | None] | None = None,
        problems: Sequence[Problem] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        columns |= {"decoded_steps": decoded_steps, "answer": answer, "problems": problems}
        values = reward(prompts=prompts, completions=completions, **columns)
        labelled = [()] * len(completions) if problems is None else [problem.steps for problem in problems]
        chains = zip(labelled, column(decoded_steps, completions), strict=True)
        kinds = answer_kinds(completions, problems, answer)
        return [
            value if equations_apply(kind, labels or decoded or ()) else None
            for value, kind, (labels, decoded) in zip(values, kinds, chains, strict=True)
        ]

    return applied
