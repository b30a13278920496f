"""A decoded plan as a graph: where each operand comes from, and which result is the answer.

    <<7+3=10>> <<10*2=9>>    7, 3 → step 0 → step 1 ← 2,  step 1 → answer

An operand is taken for the latest earlier result of its value, each result once in an equation; else for a
number of the question; else for one that comes from nowhere. Steps that are sentences stand in their order,
without arrows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from latentplan.problems.answers import NUMBER, AnswerKind
from latentplan.problems.equations import Equation
from latentplan.report.examples import marked_steps
from latentplan.report.figures.latent_maps import shown_number
from latentplan.rewards.plan_graph import equations_of
from latentplan.rewards.plan_rewards import CONSTANTS, numbers_of_question


@dataclass(frozen=True)
class Given:
    """An operand that no earlier step computed; `known` if the question, or a usual constant, has it."""

    text: str
    known: bool


@dataclass(frozen=True)
class StepNode:
    """One equation, or a step that holds none.

    Attributes:
        text: without brackets.
        flaw: what is wrong with it; empty: nothing.
        sources: places of the earlier nodes whose results it uses.
        given: its other operands.
        column: 0 for a step that uses no other, else one more than the latest that it uses; of a step without
            an equation one more than all before it.
        row: its place among the nodes of its column.
    """

    text: str
    flaw: str
    sources: tuple[int, ...]
    given: tuple[Given, ...]
    column: int
    row: int


@dataclass(frozen=True)
class PlanGraph:
    """The nodes in the order of the plan, and the place of the one whose result is the answer, if any."""

    nodes: tuple[StepNode, ...]
    answering: int | None


def plan_graph(
    plan: Sequence[str],
    question: str,
    answer: str | None,
    modulus: int | None = None,
    kind: AnswerKind = NUMBER,
) -> PlanGraph:
    """The graph of a decoded plan; a step of several equations is as many nodes."""
    flaws = [step.flaw for step in marked_steps(plan, answer, modulus, kind)]
    parts = [
        (equation, text, flaw)
        for text, flaw in zip(plan, flaws, strict=True)
        for equation in equations_of(text) or (None,)
    ]
    numbers = numbers_of_question(question)
    nodes: list[StepNode] = []
    results: list[Fraction | None] = []
    for equation, text, flaw in parts:
        sources, given = _operands(equation, results, numbers)
        # Of a step without an equation nothing is known but its place.
        before = nodes if equation is None else [nodes[source] for source in sources]
        column = 1 + max((node.column for node in before), default=-1)
        row = sum(node.column == column for node in nodes)
        shown = _stripped(text) if equation is None else f"{equation.expression} = {equation.result_text}"
        nodes.append(StepNode(shown, flaw, sources, given, column, row))
        results.append(None if equation is None else equation.result)
    return PlanGraph(tuple(nodes), _answering(results, answer, kind))


def _operands(
    equation: Equation | None, results: Sequence[Fraction | None], numbers: frozenset[Fraction]
) -> tuple[tuple[int, ...], tuple[Given, ...]]:
    sources: list[int] = []
    given: list[Given] = []
    for operand in equation.operands if equation else ():
        of = [place for place, result in enumerate(results) if result == operand]
        fresh = [place for place in of if place not in sources]
        if fresh:
            sources.append(fresh[-1])
        elif operand in numbers or -operand in numbers or not of:
            known = operand in numbers or -operand in numbers or operand in CONSTANTS
            given.append(Given(shown_number(operand), known))
    return tuple(sources), tuple(given)


def _answering(results: Sequence[Fraction | None], answer: str | None, kind: AnswerKind) -> int | None:
    of = [place for place, result in enumerate(results) if kind.is_result(result, answer)]
    return of[-1] if of else None


def _stripped(text: str) -> str:
    return " ".join(text.replace("<<", "").replace(">>", "").split()) or "(empty)"
