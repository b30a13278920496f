"""Decoded plans as drawings: a row for each question, a column for each model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentplan.evaluation.latent_table import LatentTable, SolvedProblem
from latentplan.report.examples import marked_steps
from latentplan.report.figures.plan_graph import PlanGraph, StepNode, plan_graph
from latentplan.report.figures.style import BAD, COLOURS, GOOD, INK, SOFT, new_figure

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
    steps = marked_steps(solved.plan or (), solved.answer, solved.modulus, solved.kind)
    return solved.correct and bool(steps) and not any(step.flaw for step in steps)


@dataclass(frozen=True)
class _Drawing:
    """One plan; lengths are inches.

    Attributes:
        solved: the problem.
        graph: of its plan.
        spacing: between columns.
    """

    solved: SolvedProblem
    graph: PlanGraph
    spacing: float

    @classmethod
    def of(cls, solved: SolvedProblem) -> _Drawing:
        plan = (solved.plan or [])[:_MAX_STEPS]
        graph = plan_graph(plan, solved.question, solved.answer, solved.modulus, solved.kind)
        longest = max(map(_longest_line, graph.nodes), default=0)
        return cls(solved, graph, max(1.15, 0.55 + 0.085 * longest))

    @property
    def columns(self) -> int:
        return 1 + max((node.column for node in self.graph.nodes), default=0)

    @property
    def size(self) -> tuple[float, float]:
        rows = 1 + max((node.row for node in self.graph.nodes), default=0)
        return self.spacing * (self.columns + 0.5) + 0.75, _ROW + 1.15 * (rows - 1)

    def place(self, node: StepNode) -> tuple[float, float]:
        """Returns the position of a node, from the first column and the middle row."""
        height = sum(other.column == node.column for other in self.graph.nodes)
        return self.spacing * node.column, 1.15 * ((height - 1) / 2 - node.row)


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
    graph = drawing.graph
    positions = [drawing.place(node) for node in graph.nodes]
    end = (drawing.spacing * drawing.columns, 0.0)
    for node, (x, y) in zip(graph.nodes, positions, strict=True):
        for source in node.sources:
            _arrow(panel, positions[source], (x, y), drawing.spacing, 9 + 2.9 * _longest_line(node))
        _givens(panel, node, x, y)
    if graph.answering is not None:
        _arrow(panel, positions[graph.answering], end, drawing.spacing)
    for node, (x, y) in zip(graph.nodes, positions, strict=True):
        _step(panel, node, x, y)
    if not graph.nodes:
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


def _givens(panel: Any, node: StepNode, x: float, y: float) -> None:
    gap = 0.36 + 0.08 * max((len(given.text) - 2 for given in node.given), default=0)
    for index, given in enumerate(node.given):
        at = (x + gap * (index - (len(node.given) - 1) / 2), y - 0.58)
        panel.annotate(
            "", xy=(x, y - 0.1), xytext=at,
            arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.9, "shrinkA": 6, "shrinkB": 2},
        )  # fmt: skip
        frame = {"boxstyle": "square,pad=0.25", "facecolor": "white", "linewidth": 0.9}
        frame |= {"edgecolor": SOFT} if given.known else {"edgecolor": BAD, "linestyle": "--"}
        text = given.text if given.known else f"{given.text}?"
        panel.text(*at, text, ha="center", va="center", fontsize=8, bbox=frame)


def _step(panel: Any, node: StepNode, x: float, y: float) -> None:
    frame = {"boxstyle": "round,pad=0.4", "facecolor": "#eef3f8", "edgecolor": COLOURS[4], "linewidth": 1.2}
    if node.flaw:
        frame |= {"facecolor": "#fbeeec", "edgecolor": BAD, "linewidth": 1.8, "linestyle": "--"}
        panel.text(x, y + 0.22, node.flaw, ha="center", va="bottom", fontsize=7.5, color=BAD)
    panel.text(x, y, _shown(node), ha="center", va="center", fontsize=9, color=INK, bbox=frame)


def _longest_line(node: StepNode) -> int:
    return max(map(len, _shown(node).split("\n")))


def _shown(node: StepNode) -> str:
    """Returns the step in at most three lines: sentences are longer than equations."""
    return "\n".join(textwrap.wrap(node.text, 22, max_lines=3, placeholder=" …"))


def _answer(panel: Any, solved: SolvedProblem, at: tuple[float, float]) -> None:
    colour, verdict = (GOOD, "right") if solved.correct else (BAD, f"wrong, it is {solved.reference}")
    frame = {"boxstyle": "round4,pad=0.5", "facecolor": "white", "edgecolor": colour, "linewidth": 2.2}
    text = "none" if solved.answer is None else textwrap.shorten(solved.answer, 12, placeholder="…")
    panel.text(*at, text, ha="center", va="center", fontsize=11, fontweight="bold", bbox=frame)
    panel.text(at[0], at[1] - 0.42, verdict, ha="center", va="center", fontsize=8, color=colour)
