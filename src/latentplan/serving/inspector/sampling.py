"""k samples of one question: their plans, and the votes for each answer and for each different plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from latentplan.problems.answers import NUMBER, AnswerKind
from latentplan.rollout.solve import Solution
from latentplan.serving.inspector.asking import plan_json
from latentplan.serving.inspector.reading import read_plan
from latentplan.serving.inspector.subjects import Subject


def tally(
    subject: Subject, question: str, solutions: Sequence[Solution], reference: str | None = None
) -> dict[str, Any]:
    """The samples, counted.

    Returns:
        `answers`: each different answer (None: no answer) with its votes, most first; `plans`: each different
        plan likewise, with its answers, None for a model whose steps cannot be read; `num_tokens`: mean.
    """
    kind = subject.kind_of(question, reference)
    return {
        "count": len(solutions),
        "answers": votes(solutions, reference, kind),
        "plans": _plans(subject, question, solutions, kind),
        "num_tokens": sum(solution.num_tokens for solution in solutions) / len(solutions),
        "num_unfinished": sum(not solution.finished for solution in solutions),
    }


def votes(
    solutions: Sequence[Solution], reference: str | None = None, kind: AnswerKind = NUMBER
) -> list[dict[str, Any]]:
    """How many gave each answer, most first, of equals the one that came first; and whether it is right."""
    answers = [kind.extract(solution.completion) for solution in solutions]
    by_answer = dict(zip(answers[::-1], solutions[::-1], strict=True))
    return [
        {
            "answer": answer,
            "votes": number,
            "correct": None
            if reference is None
            else kind.is_correct(by_answer[answer].completion, reference),
        }
        for answer, number in Counter(answers).most_common()
    ]


def _plans(
    subject: Subject, question: str, solutions: Sequence[Solution], kind: AnswerKind
) -> list[dict[str, Any]] | None:
    """Plans that read the same but for white space are one."""
    if any(solution.plan is None for solution in solutions):
        return None
    members: dict[tuple[str, ...], list[Solution]] = {}
    for solution in solutions:
        key = tuple("".join(step.split()) for step in solution.plan or ())
        members.setdefault(key, []).append(solution)
    found = []
    for group in sorted(members.values(), key=len, reverse=True):
        steps, answers = group[0].plan or [], votes(group, None, kind)
        reading = read_plan(steps, answers[0]["answer"], question, subject.modulus, kind)
        found.append({"votes": len(group), "answers": answers, **plan_json(steps, reading)})
    return found
