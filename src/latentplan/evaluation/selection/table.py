"""A selection result for people: a table on the terminal, and Markdown."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from latentplan.evaluation.results import Estimate
from latentplan.evaluation.selection.results import (
    MAJORITY,
    SELECTORS,
    EqualTokens,
    ModelCurves,
    SelectionResult,
)

Row = list[str]


def best_of_n_table(result: SelectionResult) -> RenderableType:
    """A table of accuracies for each model, and one of what stands beside the reference."""
    parts: list[RenderableType] = []
    for model in result.models:
        parts.append(_table(_title(result, model), *_accuracies(model)))
        if model.equal_tokens:
            title = f"{model.name} beside {result.reference}'s majority vote, at most as many tokens"
            parts += [_table(title, *_equal_tokens(model)), Text(_unpaid(result, model), "dim")]
    if result.reference is None:
        parts.append(Text("no model that writes its steps: nothing to stand beside at equal tokens", "dim"))
    return Group(*parts)


def best_of_n_markdown(result: SelectionResult) -> str:
    """The same tables."""
    lines = [
        f"# Answers chosen from samples: {result.benchmark}",
        "",
        f"{result.num_problems} problems, {result.num_generations} samples of each at temperature "
        f"{result.sampling.temperature:g} (latents {result.sampling.latent_temperature:g}), "
        f"seed {result.seed}. Accuracy in per cent with 95% intervals over problems; tokens are latents and "
        "text of all k samples.",
    ]
    for model in result.models:
        lines += ["", f"## {_title(result, model)}", "", *_markdown(*_accuracies(model))]
        if model.equal_tokens:
            lines += ["", f"Beside {result.reference}'s majority vote with at most as many tokens:", ""]
            lines += [*_markdown(*_equal_tokens(model)), "", _unpaid(result, model)]
    return "\n".join(lines) + "\n"


def _title(result: SelectionResult, model: ModelCurves) -> str:
    greedy = model.greedy
    return (
        f"{model.name} ({model.method}) on {result.benchmark}: greedy {_interval(greedy.accuracy)} "
        f"with {greedy.tokens:.1f} tokens, {model.tokens:.1f} a sample"
    )


def _unpaid(result: SelectionResult, model: ModelCurves) -> str:
    tokens = next(each.tokens for each in result.models if each.name == result.reference)
    return (
        f"{result.reference} needs {tokens:.1f} tokens for one chain: what {model.name} answers with fewer "
        "has nothing beside it."
    )


def _accuracies(model: ModelCurves) -> tuple[Row, list[Row]]:
    points = next(iter(model.curves.values()))
    header = ["", *(f"k = {point.k}" for point in points)]
    rows = [["tokens a question", *(f"{point.tokens:.0f}" for point in points)]]
    rows += [
        [SELECTORS[selector], *(_interval(point.accuracy) for point in curve)]
        for selector, curve in model.curves.items()
    ]
    return header, rows


def _equal_tokens(model: ModelCurves) -> tuple[Row, list[Row]]:
    header = ["choice", "k", "tokens", "accuracy", "its k", "its accuracy", "difference"]
    rows = [_equal_row(row) for row in model.equal_tokens if row.k > 1 or row.selector == MAJORITY]
    return header, [row for row in rows if row is not None]


def _equal_row(row: EqualTokens) -> Row | None:
    """None where the tokens do not pay for one chain of the reference."""
    if row.reference_accuracy is None or row.difference is None:
        return None
    return [
        SELECTORS[row.selector],
        str(row.k),
        f"{row.tokens:.0f}",
        _interval(row.accuracy),
        str(row.reference_k),
        _interval(row.reference_accuracy),
        _interval(row.difference, signed=True),
    ]


def _interval(estimate: Estimate, signed: bool = False) -> str:
    sign = "+" if signed else ""
    text = f"{100 * estimate.estimate:{sign}.1f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def _table(title: str, header: Row, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(header: Row, rows: list[Row]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
