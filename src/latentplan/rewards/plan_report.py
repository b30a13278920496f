"""A plan as a reader checks it: which steps are true and grounded, and which result goes where.

    <<7+3=10>>            true    7 and 3 stand in the question     goes into step 2
    <<10*2=21>>           false: it is 20                           goes into the answer

The rules are those of the rewards, step by step: `rewards.plan_rewards` for equations,
`rewards.sentence_coherence` for sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from latentplan.problems.answers import NUMBER, AnswerKind, parse_number
from latentplan.problems.equations import Equation, evaluate
from latentplan.rewards.plan_graph import equations_apply, equations_of
from latentplan.rewards.plan_rewards import (
    CONSTANTS,
    grounding,
    numbers_of_question,
    paper_coherence,
    strict_coherence,
    validity,
)
from latentplan.rewards.sentence_coherence import read_natural


@dataclass(frozen=True)
class Link:
    """A step's result that is an operand of a later step, or the answer.

    Attributes:
        start: the step that the number comes from, counted from 0.
        end: the step that it goes into; None for the answer.
        value: the number, as the earlier step writes it; in sentences the words that are carried on.
        strength: in (0, 1]; 1 between equations.
    """

    start: int
    end: int | None
    value: str
    strength: float = 1.0


@dataclass(frozen=True)
class StepReading:
    """What can be said of one step; None where it holds no equation, or the plan is in sentences.

    Attributes:
        true: whether its equations are.
        grounded: whether each operand is known by then.
        used: whether its results are operands of later steps, or the answer.
        notes: what is wrong, in words.
        score: of a sentence, its natural coherence in [0, 1].
    """

    true: bool | None
    grounded: bool | None
    used: bool | None
    notes: tuple[str, ...]
    score: float | None = None


@dataclass(frozen=True)
class PlanReading:
    """A whole plan.

    Attributes:
        steps: one for each step.
        links: from results to where they are used.
        scores: by name, in [0, 1]: coherence (strict), coherence_paper, validity, grounding and `plan`; of a
            plan in sentences coherence_natural alone.
    """

    steps: tuple[StepReading, ...]
    links: tuple[Link, ...]
    scores: dict[str, float]


def read_plan(
    steps: Sequence[str],
    answer: str | None,
    question: str,
    modulus: int | None = None,
    kind: AnswerKind = NUMBER,
) -> PlanReading:
    """Reads a plan beside its question and the answer that was given.

    Args:
        steps: the plan's text, step by step.
        answer: the predicted answer; None where there is none.
        question: in words.
        modulus: of the arithmetic; None for ordinary numbers.
        kind: of the answer.
    """
    in_sentences = steps and not any(equations_of(step) or "<<" in step for step in steps)
    if in_sentences or not equations_apply(kind, steps):
        return _read_sentences(steps, answer, question, modulus, kind)
    readings, known = [], set(numbers_of_question(question) | CONSTANTS)
    for place, step in enumerate(steps):
        readings.append(_read_step(step, _is_used(place, steps, answer, kind), known, modulus))
    return PlanReading(
        tuple(readings), tuple(links(steps, answer, kind)), _scores(steps, answer, question, modulus, kind)
    )


def links(steps: Sequence[str], answer: str | None, kind: AnswerKind = NUMBER) -> list[Link]:
    """Every pair of a step and a later one, or the answer, that the strict coherence counts."""
    chain = [(place, equation) for place, step in enumerate(steps) for equation in equations_of(step)]
    found: dict[Link, None] = {}
    for index, (place, equation) in enumerate(chain):
        for later, other in chain[index + 1 :]:
            if later > place and equation.result in other.operands:
                found[Link(place, later, equation.result_text)] = None
        if _equals(equation, answer, kind):
            found[Link(place, None, equation.result_text)] = None
    return list(found)


def _read_sentences(
    steps: Sequence[str], answer: str | None, question: str, modulus: int | None, kind: AnswerKind
) -> PlanReading:
    found = read_natural(steps, answer, question, modulus, kind)
    readings = (
        StepReading(None, None, None, (remark,) if remark else (), score)
        for score, remark in zip(found.steps, found.remarks, strict=True)
    )
    carried = (Link(each.source, each.target, ", ".join(each.things), each.strength) for each in found.links)
    return PlanReading(tuple(readings), tuple(carried), {"coherence_natural": found.score})


def _read_step(step: str, used: bool, known: set[Fraction], modulus: int | None) -> StepReading:
    """One step, given the numbers known before it, to which its results are added."""
    equations = equations_of(step)
    if not equations:
        return StepReading(None, None, None, ("not an equation",))
    notes, true = [], True
    strangers: dict[str, None] = {}
    for equation in equations:
        if not equation.is_true(modulus):
            true = False
            notes.append("false" + _right_value(equation, modulus))
        for operand in equation.operands:
            if operand not in known and -operand not in known:
                strangers[_shown(operand)] = None
        known.add(equation.result)
    if strangers:
        notes.append(f"{' and '.join(strangers)} {'comes' if len(strangers) == 1 else 'come'} from nowhere")
    if not used:
        notes.append("result not used")
    return StepReading(true, not strangers, used, tuple(notes))


def _is_used(place: int, steps: Sequence[str], answer: str | None, kind: AnswerKind) -> bool:
    """Whether every equation of the step counts for the strict coherence."""
    mine = equations_of(steps[place])
    later = [equation for step in steps[place + 1 :] for equation in equations_of(step)]
    for index, equation in enumerate(mine):
        operands = (operand for other in [*mine[index + 1 :], *later] for operand in other.operands)
        if equation.result not in operands and not _equals(equation, answer, kind):
            return False
    return bool(mine)


def _equals(equation: Equation, answer: str | None, kind: AnswerKind) -> bool:
    return kind.is_result(parse_number(equation.result_text), answer)


def _right_value(equation: Equation, modulus: int | None) -> str:
    try:
        value = evaluate(equation.expression, modulus)
    except ValueError:
        return ""
    return f": it is {_shown(value)}" + (f" modulo {modulus}" if modulus else "")


def _shown(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.6g}"


def _scores(
    steps: Sequence[str], answer: str | None, question: str, modulus: int | None, kind: AnswerKind
) -> dict[str, float]:
    scores = {
        "coherence": strict_coherence(steps, answer, kind),
        "coherence_paper": paper_coherence(steps, answer),
        "validity": validity(steps, modulus),
        "grounding": grounding(steps, question),
    }
    return {**scores, "plan": scores["coherence"] * scores["validity"] * scores["grounding"]}
