"""Coherence of chains in sentences: is what each step finds carried on, up to the answer?

The open question of ATP-Latent (arXiv:2601.21598): its coherence reads equations only. Here a step is read
as clauses (`rewards.things`), which take things and give things: a calculation takes numbers and gives its
result; `every X is a Y`, where the question is told in such sentences, takes X and gives Y; any other
sentence takes what is known and gives the numbers and content words that are new. A clause is worth

    support x taken up x (1 if the answer rests on it, else 1/2)        each in [0, 1]

- *support*: how well known what it takes is, from the question and the clauses before it;
- *taken up*: whether a later clause, or the answer, takes what it gives. One result is a whole link, one word
  half of one (`STATED_WEIGHT`); each thing that is taken is taken from one clause only;
- a calculation that is plainly false, an `X is a Y` that follows from nothing, a repetition and a step that
  cannot be read are worth 0, and nothing can rest on them.

The score is the mean over clauses, and 0 without steps. No labels are used: the answer is the predicted one.

    decoded steps                                                  answer              natural
    48/2 = 24 clips in May.   48+24 = 72 in all.                   72                  1
    48+24 = 72 in all.   48/2 = 24 clips in May.                   72                  1/4     wrong order
    48/2 = 24 clips in May.   48/2 = 24 clips in May.              72                  0       repeated
    Tom is a terp.   Every terp is a brim.   Every brim is a lem.  Tom is a lem.       1
    Every terp is a brim.   Tom is a terp.   Every brim is a lem.  Tom is a lem.       1/3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from latentplan.problems.answers import NUMBER, AnswerKind
from latentplan.problems.problem import Problem
from latentplan.rewards.carrying import ANSWER, Carried, Chain, asked_by
from latentplan.rewards.contract import answer_kinds, column
from latentplan.rewards.things import Thing, clauses_of


def coherence_natural(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    question: Sequence[str] | None = None,
    modulus: Sequence[int | None] | None = None,
    answer: Sequence[str | None] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """`natural_coherence` of each trajectory with its `question`, else its prompt; None without a decoder."""
    columns = zip(
        completions,
        column(decoded_steps, completions),
        prompts if question is None else question,
        column(modulus, completions),
        answer_kinds(completions, problems, answer),
        strict=True,
    )
    return [
        None if steps is None else natural_coherence(steps, kind.extract(completion), asked, base, kind)
        for completion, steps, asked, base, kind in columns
    ]


def natural_coherence(
    steps: Sequence[str],
    answer: str | None,
    question: str,
    modulus: int | None = None,
    kind: AnswerKind = NUMBER,
) -> float:
    """The score of `read_natural`, in [0, 1]."""
    clauses = _chain(steps, answer, question, modulus, kind).clauses
    return fmean(clause.score for clause in clauses) if clauses else 0.0


@dataclass(frozen=True)
class Link:
    """What one step hands on to a later one, or to the answer.

    Attributes:
        source: the step that gives it, from 0.
        target: the step that takes it; None for the answer.
        things: what is carried, as text: numbers, stems of words, `#1` for what step 1 found.
        strength: in (0, 1].
    """

    source: int
    target: int | None
    things: tuple[str, ...]
    strength: float


@dataclass(frozen=True)
class NaturalReading:
    """A plan, step by step.

    Attributes:
        score: the natural coherence, in [0, 1].
        steps: `[steps]`, the mean over the clauses of each step.
        remarks: `[steps]`, why a step earns nothing; empty where it earns something.
        links: what is carried from which step to which, in the order of the steps.
    """

    score: float
    steps: tuple[float, ...]
    remarks: tuple[str, ...]
    links: tuple[Link, ...]


def read_natural(
    steps: Sequence[str],
    answer: str | None,
    question: str,
    modulus: int | None = None,
    kind: AnswerKind = NUMBER,
) -> NaturalReading:
    """A plan with the score of each step and the links between them, for pictures and inspection.

    Args:
        steps: the decoded steps, one text each.
        answer: the predicted answer without its marker; None where there is none.
        question: what was asked.
        modulus: of the arithmetic, where it has one.
        kind: of the answer.
    """
    clauses = _chain(steps, answer, question, modulus, kind).clauses
    of_steps = [[clause for clause in clauses if clause.step == step] for step in range(len(steps))]
    return NaturalReading(
        score=fmean(clause.score for clause in clauses) if clauses else 0.0,
        steps=tuple(fmean(clause.score for clause in of_step) for of_step in of_steps),
        remarks=tuple(_remark(of_step) for of_step in of_steps),
        links=tuple(_links(clauses)),
    )


def _chain(
    steps: Sequence[str], answer: str | None, question: str, modulus: int | None, kind: AnswerKind
) -> Chain:
    asked = asked_by(question)
    chain = Chain(asked, modulus)
    for step, text in enumerate(steps):
        clauses = clauses_of(text, bool(asked.relations))
        for clause in clauses:
            chain.add(step, clause)
        if not clauses:
            chain.add_unreadable(step)
    chain.close(answer, kind)
    return chain


def _remark(clauses: Sequence[Carried]) -> str:
    remarks = dict.fromkeys(clause.remark for clause in clauses)
    return "" if "" in remarks else "; ".join(remarks)


def _links(clauses: Sequence[Carried]) -> list[Link]:
    found: dict[tuple[int, int], tuple[list[Thing], float]] = {}
    for clause in clauses:
        for place in clause.onward:
            target = ANSWER if place == ANSWER else clauses[place].step
            if target == clause.step:
                continue
            things, strength = found.get((clause.step, target), ([], 0.0))
            found[clause.step, target] = (
                [*things, *clause.onward[place]],
                max(strength, clause.strength(place)),
            )
    return [
        Link(source, None if target == ANSWER else target, tuple(dict.fromkeys(map(str, things))), strength)
        for (source, target), (things, strength) in found.items()
    ]
