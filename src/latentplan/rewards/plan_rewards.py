"""Rewards of decoded plans: coherence (the paper's and the strict one), validity, grounding, the plan score.

Coherence: does each decoded step lead on to a later one, and the last to the answer? The coherence reward of
ATP-Latent (arXiv:2601.21598) needs no labels: it reads only what the step decoder makes of the latents, and
the predicted answer.

    decoded steps                          answer    paper    strict
    <<16-3-4=9>>  <<9*2=18>>               18        1        1
    <<1+3=4>>     <<14*2=28>>              28        1        1/2       '4' occurs in '14'
    <<3+4=7>><<7*2=14>>                    14        0        1         paper: a step's result is its first, 7
    <<3+1=4>><<2*7=14>>                    14        1        1/2       and '4' occurs in '14'
    <<7+3=5+5=10>>                         10        0        0         paper: the result is '5+5=10'
    no equation   nor this one             28        1        0         the empty result occurs everywhere
                                           28        1        0         no steps at all

Validity and grounding: are the equations true, and do their numbers come from somewhere? A chain cannot score
by being connected and wrong. Both are shares of the decoded steps, in [0, 1]: a step that cannot be read
counts as a miss, and no steps score 0. A step with several equations, the rest of a chain longer than the
latent steps, is as good as the worst of them. The plan score is the product of validity, grounding and strict
coherence.

All but the paper's coherence, which compares texts, read `plan_graph.PlanGraph`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import wraps
from math import prod
from typing import Any

from latentplan.problems.answers import NUMBER, AnswerKind
from latentplan.problems.problem import Problem
from latentplan.rewards.answer_rewards import when_correct
from latentplan.rewards.contract import Reward, answer_kinds, column, named_reward, plan_columns
from latentplan.rewards.plan_graph import PlanGraph, equations_apply

_PUBLISHED_RESULT = re.compile(r"=(.*?)>>")


def of_equations(reward: Reward) -> Reward:
    """Returns `reward` that is None where `equations_apply` neither to the labelled nor to the decoded chain.

    Without a labelled chain the decoded one decides.
    """

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


@named_reward("coherence_paper")
@of_equations
def coherence_paper(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Returns `paper_coherence` of each trajectory; None where nothing was decoded (no step decoder).

    As published, the last result is looked for in the whole text behind the latents, marker or not. Where the
    steps are themselves written in that text (a chain of thought), only what follows them is the prediction.
    """
    return [
        None if steps is None else paper_coherence(steps, _after_steps(completion, steps))
        for completion, steps in zip(completions, column(decoded_steps, completions), strict=True)
    ]


@named_reward("coherence_strict")
@of_equations
def coherence_strict(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    answer: Sequence[str | None] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Returns `strict_coherence` of each trajectory; None where nothing was decoded (no step decoder)."""
    kinds = answer_kinds(completions, problems, answer)
    return [
        None if steps is None else strict_coherence(steps, kind.extract(completion), kind)
        for completion, steps, kind in zip(
            completions, column(decoded_steps, completions), kinds, strict=True
        )
    ]


coherence_paper_if_correct = when_correct(coherence_paper)
coherence_strict_if_correct = when_correct(coherence_strict)


def paper_coherence(steps: Sequence[str], predicted: str | None) -> float:
    """Returns the coherence by substrings, ATP-Latent's published rule in every case (arXiv:2601.21598).

    The result of a step is what stands between its first `=` from which a `>>` follows in the same line and
    that `>>`, without surrounding blanks; it is empty where there is none. A step counts if its result occurs
    in the text of any later step, the last if it occurs in the text that was predicted; the score is the
    share of steps that count. What this rewards or misses by accident:

    - a step that cannot be read has the empty result, which occurs everywhere, so gibberish scores 1;
    - '4' occurs in '14', and also in a later step's own result;
    - no steps at all score 1;
    - of several equations in a step the first is compared, which the last step's seldom is the answer to;
    - of `<<a=b=c>>` the result is 'b=c', which hardly ever occurs again;
    - `3+4=7` without `>>` has the empty result.

    Args:
        steps: the decoded steps.
        predicted: the text behind the latents; None is the empty text.
    """
    if not steps:
        return 1.0
    counted = 0
    for index, result in enumerate(map(_published_result, steps)):
        later = steps[index + 1 :] or [predicted or ""]
        counted += any(result in text for text in later)
    return counted / len(steps)


def strict_coherence(steps: Sequence[str], answer: str | None, kind: AnswerKind = NUMBER) -> float:
    """Returns the coherence by numbers, which closes the holes of `paper_coherence`: our default for RL.

    A step counts if its result is an operand of a later step or equals the predicted answer, the last only if
    it equals the answer; one that cannot be read never counts. The score is the share of steps that count,
    and 0 without steps. An answer that is no number equals no result.

    The equations of a decoded step that holds several, the rest of a long chain, are steps of the chain in
    their order, so that the score is the same as if each had been decoded by itself.
    """
    return PlanGraph(steps, answer=answer, kind=kind).coherence


def _published_result(step: str) -> str:
    found = _PUBLISHED_RESULT.search(step)
    return found.group(1).strip() if found else ""


def _after_steps(completion: str, steps: Sequence[str]) -> str:
    """Returns what follows the steps where the completion has them all, in order; else all of it."""
    end = 0
    for step in steps:
        start = completion.find(step, end)
        if start < 0:
            return completion
        end = start + len(step)
    return completion[end:]


@named_reward("validity")
@of_equations
def validity_reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    modulus: Sequence[int | None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Returns `validity` of each trajectory; None where nothing was decoded (no step decoder)."""
    columns = zip(column(decoded_steps, completions), column(modulus, completions), strict=True)
    return [None if steps is None else validity(steps, base) for steps, base in columns]


@named_reward("grounding")
@of_equations
def grounding_reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    question: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Returns `grounding` of each trajectory in its `question`, else its prompt; None without a plan."""
    columns = zip(column(decoded_steps, completions), prompts if question is None else question, strict=True)
    return [None if steps is None else grounding(steps, text) for steps, text in columns]


@named_reward("plan")
@of_equations
def plan_reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    question: Sequence[str] | None = None,
    modulus: Sequence[int | None] | None = None,
    answer: Sequence[str | None] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Returns the plan score: validity times grounding times strict coherence; None without a plan."""
    columns = plan_columns(prompts, completions, decoded_steps, question, modulus, answer, problems)
    graphs = [
        None if steps is None else PlanGraph(steps, text, kind.extract(completion), base, kind)
        for completion, steps, text, base, kind in columns
    ]
    return [
        None if graph is None else prod((graph.validity, graph.grounding, graph.coherence))
        for graph in graphs
    ]


def validity(steps: Sequence[str], modulus: int | None = None) -> float:
    """Returns the share of decoded steps whose equations are all true, modulo `modulus` where given."""
    return PlanGraph(steps, modulus=modulus).validity


def grounding(steps: Sequence[str], question: str) -> float:
    """Returns the share of decoded steps all of whose operands are known, see `PlanGraph.unknown`."""
    return PlanGraph(steps, question).grounding
