"""Reward on the problem's valid chains: how much of the nearest one stands in the decoded plan.

    valid chains    <<7+3=10>> <<10*2=20>>  and  <<7*2=14>> <<3*2=6>> <<14+6=20>>

    decoded steps                          reward    with order: false
    <<3+7=10>>  <<10*2=20>>                1         1        the order of operands makes no other step
    <<10*2=20>>  <<7+3=10>>                1/2       1
    <<7*2=14>>  <<14+6=20>>                2/3       2/3
    <<7+3=10>>  <<10*2=21>>                1/2       1/2      less extra_penalty: <<10*2=21>> is in no chain
    <<3*2=6>><<7*2=14>><<14+6=20>>         2/3       1        one step with the rest of a chain

A plan may be true, grounded and coherent and yet not solve the problem; this reward compares it with the
chains that do. It needs problems whose valid chains are known (`Problem.plans`): minigsm's. They list at most
64 chains; a problem with as many may have more, and steps of those count as steps of no chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from latentplan.common.plugins import setting
from latentplan.problems.answers import normalise_answer
from latentplan.problems.equations import Equation
from latentplan.problems.problem import Chain, Problem
from latentplan.rewards.contract import column, named_reward
from latentplan.rewards.plan_graph import equations_of, value_of

_SPELLINGS = str.maketrans({"x": "*", "X": "*", "×": "*", "·": "*", "÷": "/", "−": "-"})


@dataclass(frozen=True)
class ValidChains:
    """Settings of `valid_chains`."""

    order: bool = setting(True, "whether steps have to come in the order of a valid chain")
    extra_penalty: float = setting(0.0, "what each decoded step that no valid chain has takes away")
    labelled: bool = setting(
        False, "where the valid chains are not known, whether the labelled chain is the only one"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.extra_penalty < float("inf"):
            raise ValueError(
                f"extra_penalty of reward valid_chains must be a number from 0 on, got {self.extra_penalty}"
            )


_DEFAULTS = ValidChains()


@named_reward("valid_chains")
def valid_chains(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    problems: Sequence[Problem] | None = None,
    settings: ValidChains = _DEFAULTS,
    **kwargs: Any,
) -> list[float | None]:
    """Returns `chain_score` of each trajectory with the valid chains of its problem.

    None where nothing was decoded, and where no valid chain is known (`Problem.plans`).
    """
    pairs = zip(column(decoded_steps, completions), column(problems, completions), strict=True)
    return [
        None if steps is None or problem is None else chain_score(steps, _known(problem, settings), settings)
        for steps, problem in pairs
    ]


def chain_score(
    steps: Sequence[str], chains: Sequence[Chain], settings: ValidChains = _DEFAULTS
) -> float | None:
    """Returns the share of the nearest chain that a plan has, less the penalty for steps of no chain.

    With `order` the steps of the plan that count are the longest common subsequence of both, else all that
    both have. Steps that hold equations are the same where these have the same numbers, operators and value;
    other steps where they differ only in case, blanks and punctuation around them.

    Args:
        steps: the decoded steps; one with several equations is as many steps.
        chains: the valid chains, those without steps are left out.
        settings: how steps are counted.

    Returns:
        at most 1, and at least 0 without a penalty; None without chains.
    """
    known = _read(tuple(chains))
    if not known:
        return None
    plan = _steps(steps)
    share = 1.0 if plan in known else max(_overlap(plan, chain, settings.order) for chain in known)
    extra = sum(all(step not in chain for chain in known) for step in plan)
    return share - settings.extra_penalty * extra


def _known(problem: Problem, settings: ValidChains) -> Sequence[Chain]:
    if problem.plans is None and settings.labelled:
        return (problem.steps,)
    return problem.plans or ()


@lru_cache(maxsize=4096)
def _read(chains: tuple[Chain, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(dict.fromkeys(_steps(chain) for chain in chains if chain))


def _steps(chain: Sequence[str]) -> tuple[str, ...]:
    return tuple([step for text in chain for step in _identities(text)])


@lru_cache(maxsize=65536)
def _identities(step: str) -> tuple[str, ...]:
    """Returns what is equal for steps that are the same: of each equation, else of the text."""
    return tuple(map(_identity, equations_of(step))) or (normalise_answer(step),)


def _identity(equation: Equation) -> str:
    numbers = " ".join(map(str, sorted(equation.operands)))
    symbols = Counter(equation.expression.translate(_SPELLINGS))
    operators = " ".join(str(symbols[symbol]) for symbol in "+-*/")
    # The value tells 7-3 from 3-7, whatever result stands behind it.
    return f"{numbers}, {operators}, {value_of(equation)}, {equation.result}"


def _overlap(plan: Sequence[str], chain: Sequence[str], in_order: bool) -> float:
    """Returns the share of the chain's steps that the plan has."""
    if not in_order:
        return (Counter(plan) & Counter(chain)).total() / len(chain)
    longest = [0] * (len(chain) + 1)  # common subsequence of the plan so far and the first steps of the chain
    for step in plan:
        before = longest.copy()
        for end, other in enumerate(chain, 1):
            longest[end] = before[end - 1] + 1 if step == other else max(before[end], longest[end - 1])
    return longest[-1] / len(chain)
