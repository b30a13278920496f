"""Decoded plans as drawings: a row for each question, a column for each model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentplan.evaluation.latent_table import LatentTable, SolvedProblem
from latentplan.report.figures.style import BAD, COLOURS, GOOD, INK, SOFT, new_figure
from latentplan.rewards.plan_graph import CONSTANTS, Node, PlanGraph
from latentplan.rewards.plan_report import marked_steps, shown_number

QUESTIONS = 4
"""Questions of a figure."""
_MODELS = 3
_MAX_STEPS = 8
_MAX_WIDTH = 15.0
_TITLE, _TEXT, _ROW = 0.35, 0.36, 1.35


def chosen_questions(tables: Sequence[LatentTable]) -> list[int]:
    """Chooses telling problems: half where the models differ or fail, half where all are correct without a
    flaw.

    Of each kind those with the longest plans.
    """

    def telling(index: int) -> tuple[int, int, int]:
        solved = [table.problems[index] for table in tables]
        answers, plans = {each.correct for each in solved}, {tuple(each.plan or ()) for each in solved}
        return len(answers), len(plans), min(min(len(each.plan or ()), _MAX_STEPS) for each in solved)

    indices = sorted(range(len(tables[0].problems)), key=lambda index: (telling(index), -index), reverse=True)
    plain = [index for index in indices if all(_is_sound(table.problems[index]) for table in tables)]
    plain.sort(key=lambda index: -telling(index)[2])
    special = [index for index in indices if index not in set(plain)]
    chosen = special[: QUESTIONS // 2] + plain
    return [*chosen, *special[QUESTIONS // 2 :]][:QUESTIONS]


def _is_sound(solved: SolvedProblem) -> bool:
    steps = marked_steps(_graph(solved, solved.plan or ()))
    return solved.correct and bool(steps) and not any(step.flaw for step in steps)


def _graph(solved: SolvedProblem, plan: Sequence[str]) -> PlanGraph:
    return PlanGraph(plan, solved.question, solved.answer, solved.modulus, solved.kind)


@dataclass(frozen=True)
class Box:
    """A node of a plan's graph, and where it is drawn.

    Attributes:
        node: the node.
        text: the equation without brackets; of a step that cannot be read its text.
        flaw: what is wrong with its step; empty: nothing.
        column: 0 for a node that uses no other, else one more than the latest that it uses; of a step without
            an equation one more than all before it.
        row: its index among the boxes of its column.
    """

    node: Node
    text: str
    flaw: str
    column: int
    row: int

    @property
    def given(self) -> list[tuple[str, bool]]:
        """The operands that no earlier node computed, and whether the question or a constant has each."""
        operands = [each for each in self.node.operands if each.source is None]
        return [(shown_number(each.value), each.in_question or each.value in CONSTANTS) for each in operands]


def boxes(graph: PlanGraph) -> list[Box]:
    """Returns the nodes of a plan, in its order, arranged in columns."""
    flaws = [step.flaw for step in marked_steps(graph)]
    found: list[Box] = []
    for node in graph.nodes:
        # Of a step without an equation nothing is known but its index.
        before = found if node.equation is None else [found[source] for source in node.sources]
        column = 1 + max((box.column for box in before), default=-1)
        row = sum(box.column == column for box in found)
        found.append(Box(node, _text(node, graph.steps[node.step]), flaws[node.step], column, row))
    return found


def _text(node: Node, step: str) -> str:
    if node.equation is not None:
        return f"{node.equation.expression} = {node.equation.result_text}"
    return " ".join(step.replace("<<", "").replace(">>", "").split()) or "(empty)"


@dataclass(frozen=True)
class _Drawing:
    """One plan; lengths are inches.

    Attributes:
        solved: the problem.
        boxes: the nodes of its plan.
        answer_box: the index of the box whose result is the answer, if any.
        spacing: between columns.
    """

    solved: SolvedProblem
    boxes: Sequence[Box]
    answer_box: int | None
    spacing: float

    @classmethod
    def of(cls, solved: SolvedProblem) -> _Drawing:
        graph = _graph(solved, (solved.plan or [])[:_MAX_STEPS])
        arranged = boxes(graph)
        longest = max(map(_longest_line, arranged), default=0)
        return cls(solved, arranged, graph.answer_node, max(1.15, 0.55 + 0.085 * longest))

    @property
    def columns(self) -> int:
        return 1 + max((box.column for box in self.boxes), default=0)

    @property
    def size(self) -> tuple[float, float]:
        rows = 1 + max((box.row for box in self.boxes), default=0)
        return self.spacing * (self.columns + 0.5) + 0.75, _ROW + 1.15 * (rows - 1)

    def position(self, box: Box) -> tuple[float, float]:
        """Returns where a box is, seen from the first column and the middle row."""
        height = sum(other.column == box.column for other in self.boxes)
        return self.spacing * box.column, 1.15 * ((height - 1) / 2 - box.row)


def draw_plans(tables: Mapping[str, LatentTable]) -> Any:
    """Returns the plans of a few questions, for at most three models with a step decoder.

    The models stand side by side, or below each other where their plans are long.
    """
    shown = dict([(title, table) for title, table in tables.items() if table.decoded][:_MODELS])
    indices = chosen_questions(list(shown.values()))
    grid = [[_Drawing.of(table.problems[index]) for table in shown.values()] for index in indices]
    width = max(drawing.size[0] for row in grid for drawing in row)
    beside = width * len(shown) <= _MAX_WIDTH
    rows = grid if beside else [[drawing] for row in grid for drawing in row]
    heights = [max(drawing.size[1] for drawing in row) for row in rows]
    sheet = _Sheet(width * len(rows[0]), sum(heights) + _TEXT * len(rows) + (_TITLE if beside else 0.0))
    if beside:
        for column, title in enumerate(shown):
            sheet.write(column * width, _TITLE, title, fontsize=11, fontweight="bold")
    for index, (row, height) in enumerate(zip(rows, heights, strict=True)):
        before = "" if beside else f"{list(shown)[index % len(shown)]}: "
        lines = textwrap.wrap(
            before + _question(row[0].solved), int(13 * sheet.width), max_lines=2, placeholder=" …"
        )
        sheet.write(0.0, _TEXT, "\n".join(lines), fontsize=9, color=SOFT)
        sheet.top -= height
        for column, drawing in enumerate(row):
            _draw_one(sheet.panel(column * width, width, height, drawing.spacing / 2), drawing)
    return sheet.figure


class _Sheet:
    """A figure that is filled from top to bottom, in inches."""

    def __init__(self, width: float, height: float):
        self.width, self.height, self.top = width, height, height
        self.figure = new_figure(width, height)
        self.figure.set_layout_engine("none")

    def write(self, left: float, height: float, text: str, **style: Any) -> None:
        """Writes a text at the top; what comes from the left margin takes `height` away."""
        at = (self.top if left == 0 else self.top + height) - 0.08
        self.figure.text((left + 0.15) / self.width, at / self.height, text, va="top", **style)
        self.top -= height if left == 0 else 0.0

    def panel(self, left: float, width: float, height: float, margin: float) -> Any:
        """Returns an empty panel right above `top`, one inch a unit, its origin `margin` from the left."""
        frame = (left / self.width, self.top / self.height, width / self.width, height / self.height)
        panel = self.figure.add_axes(frame)
        room = (height - _ROW) / 2
        panel.set(xlim=(-margin, width - margin), ylim=(-0.85 - room, 0.5 + room))
        panel.axis("off")
        return panel


def _question(solved: SolvedProblem) -> str:
    modulus = f" (modulo {solved.modulus})" if solved.modulus else ""
    return " ".join(solved.question.split()) + modulus


def _draw_one(panel: Any, drawing: _Drawing) -> None:
    positions = [drawing.position(box) for box in drawing.boxes]
    end = (drawing.spacing * drawing.columns, 0.0)
    for box, (x, y) in zip(drawing.boxes, positions, strict=True):
        for source in box.node.sources:
            _arrow(panel, positions[source], (x, y), drawing.spacing, 9 + 2.9 * _longest_line(box))
        _givens(panel, box, x, y)
    if drawing.answer_box is not None:
        _arrow(panel, positions[drawing.answer_box], end, drawing.spacing)
    for box, (x, y) in zip(drawing.boxes, positions, strict=True):
        _step(panel, box, x, y)
    if not drawing.boxes:
        panel.text(0, 0, "no steps", ha="center", va="center", color=BAD)
    _answer(panel, drawing.solved, end)


def _arrow(
    panel: Any, start: tuple[float, float], end: tuple[float, float], spacing: float, before: float = 25.0
) -> None:
    """Draws an arrow from box to box, which ends `before` points from the middle of the second."""
    level = start[1] == end[1]
    # One that skips a column goes over what stands between.
    bend = 0.0 if end[0] - start[0] < 1.5 * spacing else -0.3
    panel.annotate(
        "", xy=end, xytext=start,
        arrowprops={
            "arrowstyle": "-|>", "color": SOFT, "linewidth": 1.2, "shrinkA": 10,
            "shrinkB": before if level else min(before, 20.0), "zorder": 1,
            "connectionstyle": f"arc3,rad={bend}",
        },
    )  # fmt: skip


def _givens(panel: Any, box: Box, x: float, y: float) -> None:
    gap = 0.36 + 0.08 * max((len(number) - 2 for number, _ in box.given), default=0)
    for index, (number, is_known) in enumerate(box.given):
        at = (x + gap * (index - (len(box.given) - 1) / 2), y - 0.58)
        panel.annotate(
            "", xy=(x, y - 0.1), xytext=at,
            arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.9, "shrinkA": 6, "shrinkB": 2},
        )  # fmt: skip
        frame = {"boxstyle": "square,pad=0.25", "facecolor": "white", "linewidth": 0.9}
        frame |= {"edgecolor": SOFT} if is_known else {"edgecolor": BAD, "linestyle": "--"}
        text = number if is_known else f"{number}?"
        panel.text(*at, text, ha="center", va="center", fontsize=8, bbox=frame)


def _step(panel: Any, box: Box, x: float, y: float) -> None:
    frame = {"boxstyle": "round,pad=0.4", "facecolor": "#eef3f8", "edgecolor": COLOURS[4], "linewidth": 1.2}
    if box.flaw:
        frame |= {"facecolor": "#fbeeec", "edgecolor": BAD, "linewidth": 1.8, "linestyle": "--"}
        panel.text(x, y + 0.22, box.flaw, ha="center", va="bottom", fontsize=7.5, color=BAD)
    panel.text(x, y, _shown(box), ha="center", va="center", fontsize=9, color=INK, bbox=frame)


def _longest_line(box: Box) -> int:
    return max(map(len, _shown(box).split("\n")))


def _shown(box: Box) -> str:
    """The step in at most three lines: sentences are longer than equations."""
    return "\n".join(textwrap.wrap(box.text, 22, max_lines=3, placeholder=" …"))


def _answer(panel: Any, solved: SolvedProblem, at: tuple[float, float]) -> None:
    colour, verdict = (GOOD, "right") if solved.correct else (BAD, f"wrong, it is {solved.reference}")
    frame = {"boxstyle": "round4,pad=0.5", "facecolor": "white", "edgecolor": colour, "linewidth": 2.2}
    text = "none" if solved.answer is None else textwrap.shorten(solved.answer, 12, placeholder="…")
    panel.text(*at, text, ha="center", va="center", fontsize=11, fontweight="bold", bbox=frame)
    panel.text(at[0], at[1] - 0.42, verdict, ha="center", va="center", fontsize=8, color=colour)
