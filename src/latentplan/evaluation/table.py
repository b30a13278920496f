"""Evaluation results side by side: a column for each, a row for each measure that one of them has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from latentplan.evaluation.results import EvaluationResult

Cell = Callable[[EvaluationResult], str | None]


def results_table(results: Sequence[EvaluationResult]) -> RenderableType:
    """A table for a rich console, and the warnings of the results under it."""
    table = Table(header_style="bold")
    table.add_column("measure")
    for result in results:
        table.add_column(f"{result.benchmark}\n{result.method}", justify="right")
    for name, cell in _rows(results):
        cells = [cell(result) for result in results]
        if any(value is not None for value in cells):
            table.add_row(name, *(value or "–" for value in cells))
    warnings = [
        Text(f"warning: {result.benchmark}: {warning}", style="yellow")
        for result in results
        for warning in result.warnings
    ]
    return Group(table, *warnings)


def _rows(results: Sequence[EvaluationResult]) -> list[tuple[str, Cell]]:
    steps = sorted({steps for result in results for steps in result.by_steps}, key=int)
    powers = sorted({k for result in results for k in result.pass_at_k or {}}, key=int)
    return [
        ("problems", lambda result: str(result.num_problems)),
        ("accuracy", _accuracy),
        *((f"pass@{k}", _pass_at(k)) for k in powers),
        *((f"  {count} step{'s' * (count != '1')}", _group_accuracy(count)) for count in steps),
        ("tokens", lambda result: f"{result.tokens.mean:.1f}"),
        ("  latent + text", lambda result: f"{result.tokens.latents:.1f} + {result.tokens.text:.1f}"),
        ("finished", lambda result: _percent(result.finished)),
        ("coherence", lambda result: result.coherence and _percent(result.coherence.strict)),
        ("  of sentences", lambda result: result.coherence and _percent(result.coherence.natural)),
        ("  the paper's", lambda result: result.coherence and _percent(result.coherence.paper)),
        ("validity", lambda result: _percent(result.validity)),
        ("grounding", lambda result: _percent(result.grounding)),
        ("plan score", lambda result: _percent(result.plan_score)),
        *_part_rows(
            "reconstruction",
            "reconstruction",
            {
                "teacher_exact": "teacher, exact",
                "teacher_result": "teacher, result",
                "free_exact": "free, exact",
                "free_result": "free, result",
            },
        ),
        *_part_rows(
            "latent_use",
            "accuracy with latents",
            {"intact": "intact", "zero": "zero", "noise": "noise", "other_question": "another question's"},
        ),
        ("stops where needed", lambda result: result.stop and _percent(result.stop.exact)),
        ("  latent steps / needed", _stops),
        ("seconds", lambda result: f"{result.seconds:.1f}"),
    ]


def _part_rows(part: str, title: str, labels: dict[str, str]) -> list[tuple[str, Cell]]:
    """A heading, and a row for each share in a part of the result that may be None."""

    def cell(name: str) -> Cell:
        return lambda result: _percent(getattr(getattr(result, part), name, None))

    def heading(result: EvaluationResult) -> str | None:
        return None if getattr(result, part) is None else " "

    return [(title, heading), *((f"  {label}", cell(name)) for name, label in labels.items())]


def _accuracy(result: EvaluationResult) -> str:
    estimate, low, high = result.accuracy.estimate, result.accuracy.low, result.accuracy.high
    if low is None or high is None:
        return f"{estimate:.1%}"
    return f"{estimate:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _pass_at(k: str) -> Cell:
    return lambda result: _percent((result.pass_at_k or {}).get(k))


def _group_accuracy(steps: str) -> Cell:
    def cell(result: EvaluationResult) -> str | None:
        group = result.by_steps.get(steps)
        return None if group is None else f"{group.accuracy:.1%} of {group.num_problems}"

    return cell


def _stops(result: EvaluationResult) -> str | None:
    stop = result.stop
    return None if stop is None else f"{stop.mean_predicted:.2f} / {stop.mean_needed:.2f}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
