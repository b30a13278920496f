"""Latent steps in the plane: a row for each model, a column for each label, every point drawn as its class.

The projections are PCA, t-SNE, and UMAP where it is installed; several models share one. The labels are the
result and the operator of a step, its number, and whether the answer is correct. Results are drawn as their
number and operators as their sign, so that no colour is needed to read them. Needs scikit-learn (the extra
`plot`), and umap-learn for UMAP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentplan.evaluation.latent_table import Clustering, LatentRow, LatentTable, main_classes
from latentplan.report.figures.style import BAD, COLOURS, GOOD, MARKERS, RULE, SOFT, new_figure
from latentplan.rewards.plan_graph import equations_of, result_of
from latentplan.rewards.plan_report import shown_number

_SPELLINGS = str.maketrans({"x": "*", "X": "*", "×": "*", "·": "*", "÷": "/"})
_SHOWN = {"+": "+", "-": "−", "*": "×", "/": "÷"}


def shown_result(text: str | None) -> str | None:
    """Returns the result of the last equation in a step, `"12"` or `"2.5"`; None where there is none."""
    result = result_of(text) if text else None
    return None if result is None else shown_number(result)


def operator_of(text: str | None) -> str | None:
    """Returns the operator of a step, `"×"`; `"several"` where it has more than one kind; None where it has
    none.
    """
    equations = equations_of(text) if text else ()
    written = "".join(equation.expression for equation in equations).translate(_SPELLINGS)
    # A sign at the start is no operator.
    found = {symbol for index, symbol in enumerate(written) if index and symbol in _SHOWN}
    if len(found) > 1:
        return "several"
    return _SHOWN[found.pop()] if found else None


LABELS: Mapping[str, Callable[[LatentRow], str | None]] = {
    "result": lambda row: shown_result(row.text),
    "operator": lambda row: operator_of(row.text),
    "step": lambda row: str(row.step),
    "answer": lambda row: "right" if row.correct else "wrong",
}
"""By name: the class of a latent step, None where it has none."""


MAX_DRAWN = 300
"""Points of a panel at most; the numbers below it are of all."""
_STEP_COLOURS = ("#9ad4ff", "#3f9bd8", "#00529b", "#16234f", "#000000")
_WORDS = {"+": "plus", "−": "minus", "×": "times", "÷": "divided by"}
_OPERATORS = {"+": COLOURS[4], "−": COLOURS[5], "×": COLOURS[2], "÷": COLOURS[1], "several": COLOURS[6]}


@dataclass(frozen=True)
class Projected:
    """One model's latent steps in the plane.

    Attributes:
        title: of the model.
        table: its latent steps.
        points: `[rows, 2]`.
        measured: by label, the numbers in the original space; None where there are fewer than two classes.
    """

    title: str
    table: LatentTable
    points: np.ndarray
    measured: dict[str, Clustering | None]


def draw_latents(models: Sequence[Projected], method: str) -> Any:
    """Returns the figure; `method` says below it how the latents were projected."""
    figure = new_figure(13.2, 3.4 * len(models) + 0.3)
    panels = figure.subplots(len(models), len(LABELS), squeeze=False, sharex=True, sharey=True)
    for row, model in zip(panels, models, strict=True):
        for panel, label in zip(row, LABELS, strict=True):
            _panel(panel, model, label)
        row[0].set_ylabel(model.title, fontsize=11, color="black", fontweight="bold")
    for panel, label in zip(panels[0], LABELS, strict=True):
        panel.set_title(_heading(label, models), pad=18)
    figure.supxlabel(f"{method}; all panels have the same axes", fontsize=8, color=SOFT)
    return figure


def _heading(label: str, models: Sequence[Projected]) -> str:
    if label in ("result", "operator"):
        sources = {"as decoded" if model.table.decoded else "of the labelled step" for model in models}
        return f"{label}, {' or '.join(sorted(sources))}"
    return {"step": "place in the chain", "answer": "answer of the chain"}[label]


def _panel(panel: Any, model: Projected, label: str) -> None:
    rows = model.table.rows[:MAX_DRAWN]
    names = [LABELS[label](row) for row in rows]
    every = [LABELS[label](row) for row in model.table.rows]
    classes = main_classes(every, [row.problem for row in model.table.rows]) or sorted(
        {n for n in every if n}
    )
    looks = _looks(label, classes)
    points = model.points[: len(rows)]
    rest = [index for index, name in enumerate(names) if name not in looks]
    panel.scatter(points[rest, 0], points[rest, 1], s=4, color="#c9ccc9", linewidths=0, clip_on=False)
    for name, style in looks.items():
        at = [index for index, found in enumerate(names) if found == name]
        panel.scatter(points[at, 0], points[at, 1], label=_WORDS.get(name, name), clip_on=False, **style)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set(visible=True, color=RULE)
    panel.set_box_aspect(1)
    if label != "result" and looks:
        panel.legend(
            loc="lower center", bbox_to_anchor=(0.5, 0.985), ncols=len(looks), fontsize=8, handletextpad=0.1,
            columnspacing=1.0, borderaxespad=0.1,
        )  # fmt: skip
    panel.set_xlabel(_numbers(model.measured[label]), fontsize=8, color=SOFT)


def _numbers(found: Clustering | None) -> str:
    if found is None:
        return "fewer than two classes of 10 problems"
    return (
        f"silhouette {_signed(found.silhouette)} (shuffled {_signed(found.silhouette_shuffled)})\n"
        f"probe {found.probe:.0%} (shuffled {found.probe_shuffled:.0%}), {found.classes} classes"
    )


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _looks(label: str, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns how the points of each class are drawn, in the order of the legend."""
    if label == "answer":
        right = {"marker": "o", "s": 14, "facecolors": "none", "edgecolors": GOOD, "linewidths": 0.7}
        wrong = {"marker": "x", "s": 26, "color": BAD, "linewidths": 1.4}
        return {"right": right, "wrong": wrong}
    if label == "step":
        return {
            name: {
                "marker": MARKERS[index % len(MARKERS)],
                "s": 16,
                "color": _STEP_COLOURS[min(index, 4)],
                "linewidths": 0.3,
                "edgecolors": "#16234f",
            }
            for index, name in enumerate(sorted(classes, key=int))
        }
    if label == "operator":
        shown = [name for name in _OPERATORS if name in classes]
        signs = {"several": "*", "÷": r"$\div$", "×": "x", "−": "_", "+": "+"}
        return {
            name: {"marker": signs[name], "s": 34, "color": _OPERATORS[name], "linewidths": 1.1}
            for name in shown
        }
    return {
        name: {
            "marker": f"${name}$",
            "s": 26 + 22 * (len(name) - 1),
            "color": COLOURS[index % len(COLOURS)],
            "linewidths": 0.0,
        }
        for index, name in enumerate(sorted(classes, key=float))
    }


Projection = Callable[[Sequence[np.ndarray], bool, int], list[np.ndarray]]
"""Points `[rows, 2]` of each model, from its vectors `[rows, width]`, whether to fit on the first, a seed."""


def pca(parts: Sequence[np.ndarray], first_only: bool, seed: int) -> list[np.ndarray]:
    """Returns the first two principal components of the first model's vectors, or of all together."""
    from sklearn.decomposition import PCA

    fitted = PCA(2, random_state=seed).fit(parts[0] if first_only else np.concatenate(parts))
    return [fitted.transform(part) for part in parts]


def tsne(parts: Sequence[np.ndarray], first_only: bool, seed: int) -> list[np.ndarray]:
    """Projects all vectors together by t-SNE, which has no map for further points: `first_only` changes
    nothing.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    every = np.concatenate(parts)
    reduced = PCA(min(50, *every.shape), random_state=seed).fit_transform(every)
    perplexity = min(30.0, (len(every) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.split(points, np.cumsum([len(part) for part in parts])[:-1])


def umap(parts: Sequence[np.ndarray], first_only: bool, seed: int) -> list[np.ndarray]:
    """Projects by UMAP, fitted on the first model's vectors or on all."""
    from umap import UMAP

    every = parts[0] if first_only else np.concatenate(parts)
    fitted = UMAP(n_neighbors=min(15, len(every) - 1), random_state=seed, n_jobs=1).fit(every)
    return [fitted.transform(part) for part in parts]


PROJECTIONS: Mapping[str, Projection] = {"pca": pca, "tsne": tsne, "umap": umap}
"""By the name on the command line."""
TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
MIN_ROWS = 5
"""Latent steps that a projection needs."""
