"""What is wrong with each step of a plan, in words: for the report, the drawings and the inspector.

    <<7+3=10>>            true    7 and 3 stand in the question     goes into step 2
    <<10*2=21>>           false: it is 20                           goes into the answer

The rules are those of the rewards: `plan_graph` for equations, `sentence_coherence` for sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from latentplan.rewards.plan_graph import Node, PlanGraph, equations_apply, equations_of
from latentplan.rewards.plan_rewards import paper_coherence
from latentplan.rewards.sentence_coherence import NaturalReading, read_natural

_UNREADABLE, _UNUSED = "not an equation", "result not used"


def shown_number(value: Fraction, digits: int = 6) -> str:
    """Returns a number as readers write it, with this many digits at most where it is broken."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.{digits}g}"


@dataclass(frozen=True)
class Step:
    """One step of a plan, and what is wrong with it (empty: nothing)."""

    text: str
    flaw: str = ""


def marked_steps(graph: PlanGraph) -> list[Step]:
    """Returns each step with its flaw: not an equation, a false equation, or a result that nothing uses.

    Plans in sentences hold no equations at all; they are left unmarked.
    """
    if not any("=" in text for text in graph.steps) or not equations_apply(graph.kind, graph.steps):
        return [Step(text) for text in graph.steps]
    pairs = zip(graph.steps, graph.nodes_of_steps, strict=True)
    return [Step(text, _flaw(nodes, graph.modulus)) for text, nodes in pairs]


def marked_sentences(graph: PlanGraph) -> list[Step]:
    """Returns each step with its flaw: why it earns nothing of the natural coherence."""
    remarks = _natural_reading(graph).remarks
    return [Step(text, remark) for text, remark in zip(graph.steps, remarks, strict=True)]


@dataclass(frozen=True)
class Link:
    """A step's result that is an operand of a later step, or the answer.

    Attributes:
        start: the index of the step that the number comes from.
        end: the index of the step that it goes into; None for the answer.
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


def read_plan(graph: PlanGraph) -> PlanReading:
    """Returns what is to be said of a plan beside its question and the predicted answer."""
    steps = graph.steps
    in_sentences = steps and not any(equations_of(step) or "<<" in step for step in steps)
    if in_sentences or not equations_apply(graph.kind, steps):
        return _read_sentences(graph)
    readings = (_read_step(nodes, graph.modulus) for nodes in graph.nodes_of_steps)
    return PlanReading(tuple(readings), tuple(links(graph)), _scores(graph))


def links(graph: PlanGraph) -> list[Link]:
    """Returns every pair of a step and a later one, or the answer, that the strict coherence counts."""
    return list(dict.fromkeys(_links(graph.nodes)))


def _links(nodes: Sequence[Node]) -> Iterator[Link]:
    for node in nodes:
        if node.equation is None:
            continue
        for target in node.targets:
            if nodes[target].step > node.step:
                yield Link(node.step, nodes[target].step, node.equation.result_text)
        if node.is_answer:
            yield Link(node.step, None, node.equation.result_text)


def _read_sentences(graph: PlanGraph) -> PlanReading:
    found = _natural_reading(graph)
    readings = (
        StepReading(None, None, None, (remark,) if remark else (), score)
        for score, remark in zip(found.steps, found.remarks, strict=True)
    )
    carried = (Link(each.source, each.target, ", ".join(each.things), each.strength) for each in found.links)
    return PlanReading(tuple(readings), tuple(carried), {"coherence_natural": found.score})


def _natural_reading(graph: PlanGraph) -> NaturalReading:
    return read_natural(graph.steps, graph.answer, graph.question, graph.modulus, graph.kind)


def _read_step(nodes: Sequence[Node], modulus: int | None) -> StepReading:
    if not _is_readable(nodes):
        return StepReading(None, None, None, (_UNREADABLE,))
    notes = _corrections(nodes, modulus, digits=6)
    unknown = dict.fromkeys(shown_number(value) for node in nodes for value in node.unknown)
    if unknown:
        notes.append(f"{' and '.join(unknown)} {'comes' if len(unknown) == 1 else 'come'} from nowhere")
    is_used = all(node.is_used for node in nodes)
    if not is_used:
        notes.append(_UNUSED)
    return StepReading(all(node.is_true for node in nodes), not unknown, is_used, tuple(notes))


def _flaw(nodes: Sequence[Node], modulus: int | None) -> str:
    """Returns the first thing that is wrong with a step."""
    if not _is_readable(nodes):
        return _UNREADABLE
    unused = [] if all(node.is_used for node in nodes) else [_UNUSED]
    return [*_corrections(nodes, modulus, digits=4), *unused, ""][0]


def _is_readable(nodes: Iterable[Node]) -> bool:
    return all(node.equation is not None for node in nodes)


def _corrections(nodes: Iterable[Node], modulus: int | None, digits: int) -> list[str]:
    """Returns of each false equation what its expression comes to, where that has a value."""
    modulo = f" modulo {modulus}" if modulus else ""
    return [
        "false" if node.value is None else f"false: it is {shown_number(node.value, digits)}{modulo}"
        for node in nodes
        if not node.is_true
    ]


def _scores(graph: PlanGraph) -> dict[str, float]:
    scores = {
        "coherence": graph.coherence,
        "coherence_paper": paper_coherence(graph.steps, graph.answer),
        "validity": graph.validity,
        "grounding": graph.grounding,
    }
    return {**scores, "plan": scores["coherence"] * scores["validity"] * scores["grounding"]}
