"""Results as tables for people: of evaluations, of best-of-n, of a diagnosis and of an attribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Column
from rich.text import Text

from latentplan.common.files import write_atomically
from latentplan.common.text_table import (
    ABSENT,
    markdown_cell,
    markdown_table,
    percent,
    points,
    signed_points,
    terminal_table,
    with_interval,
)
from latentplan.evaluation.diagnosis.findings import (
    FAILED,
    NOT_APPLICABLE,
    NOTED,
    SOUND,
    UNCLEAR,
    Diagnosis,
    Finding,
)
from latentplan.evaluation.results import (
    MAJORITY,
    SELECTORS,
    EqualTokens,
    Estimate,
    EvaluationResult,
    ModelCurves,
    SelectionResult,
)

if TYPE_CHECKING:
    from latentplan.evaluation.attribution import Attribution

Row = list[str]


def best_of_n_table(result: SelectionResult) -> RenderableType:
    """Returns a table of accuracies for each model, and one of what stands beside the reference."""
    parts: list[RenderableType] = []
    for model in result.models:
        parts.append(terminal_table(*_accuracies(model), _title(result, model)))
        if model.equal_tokens:
            title = f"{model.name} beside {result.reference}'s majority vote, at most as many tokens"
            parts += [terminal_table(*_equal_tokens(model), title), Text(_unpaid(result, model), "dim")]
    if result.reference is None:
        parts.append(Text("no model that writes its steps: nothing to stand beside at equal tokens", "dim"))
    return Group(*parts)


def best_of_n_markdown(result: SelectionResult) -> str:
    """Returns the same tables."""
    lines = [
        f"# Answers chosen from samples: {result.benchmark}",
        "",
        f"{result.num_problems} problems, {result.num_generations} samples of each at temperature "
        f"{result.sampling.temperature:g} (latents {result.sampling.latent_temperature:g}), "
        f"seed {result.seed}. Accuracy in per cent with 95% intervals over problems; tokens are latents and "
        "text of all k samples.",
    ]
    for model in result.models:
        lines += ["", f"## {_title(result, model)}", "", markdown_table(*_accuracies(model))]
        if model.equal_tokens:
            lines += ["", f"Beside {result.reference}'s majority vote with at most as many tokens:", ""]
            lines += [markdown_table(*_equal_tokens(model)), "", _unpaid(result, model)]
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
    """Returns a row; None where the tokens do not pay for one chain of the reference."""
    if row.reference_accuracy is None or row.difference is None:
        return None
    return [
        SELECTORS[row.selector],
        str(row.k),
        f"{row.tokens:.0f}",
        _interval(row.accuracy),
        str(row.reference_k),
        _interval(row.reference_accuracy),
        _interval(row.difference, signed_points),
    ]


def _interval(estimate: Estimate, write: Callable[[Any], str] = points) -> str:
    return with_interval(estimate.estimate, estimate.low, estimate.high, write, write)


Cell = Callable[[EvaluationResult], str | None]


def results_table(results: Sequence[EvaluationResult]) -> RenderableType:
    """Returns a table for a rich console, and the warnings of the results under it."""
    head = ["measure", *(f"{result.benchmark}\n{result.method}" for result in results)]
    found = [(name, [cell(result) for result in results]) for name, cell in _rows(results)]
    rows = [
        [name, *(cell or ABSENT for cell in cells)]
        for name, cells in found
        if any(cell is not None for cell in cells)
    ]
    warnings = [
        Text(f"warning: {result.benchmark}: {warning}", style="yellow")
        for result in results
        for warning in result.warnings
    ]
    return Group(terminal_table(head, rows), *warnings)


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
    """Returns a heading, and a row for each share in a part of the result that may be None."""

    def cell(name: str) -> Cell:
        return lambda result: _percent(getattr(getattr(result, part), name, None))

    def heading(result: EvaluationResult) -> str | None:
        return None if getattr(result, part) is None else " "

    return [(title, heading), *((f"  {label}", cell(name)) for name, label in labels.items())]


def _accuracy(result: EvaluationResult) -> str:
    return with_interval(result.accuracy.estimate, result.accuracy.low, result.accuracy.high)


def _pass_at(k: str) -> Cell:
    return lambda result: _percent((result.pass_at_k or {}).get(k))


def _group_accuracy(steps: str) -> Cell:
    def cell(result: EvaluationResult) -> str | None:
        group = result.by_steps.get(steps)
        return None if group is None else f"{percent(group.accuracy)} of {group.num_problems}"

    return cell


def _stops(result: EvaluationResult) -> str | None:
    stop = result.stop
    return None if stop is None else f"{stop.mean_predicted:.2f} / {stop.mean_needed:.2f}"


def _percent(share: float | None) -> str | None:
    return None if share is None else percent(share)


# A sign beside each word, so that nothing rests on colour.
LOOKS = {
    SOUND: ("✓", "green"),
    FAILED: ("✗", "bold red"),
    UNCLEAR: ("?", "yellow"),
    NOTED: ("·", "cyan"),
    NOT_APPLICABLE: ("–", "dim"),
}


def diagnosis_table(diagnosis: Diagnosis, with_figures: bool = False) -> RenderableType:
    """Returns a row for each finding; below it, if requested, its figures."""
    rows: list[list[RenderableType]] = []
    for finding in diagnosis.findings:
        sign, style = LOOKS[finding.status]
        status = Text(f"{sign} {finding.status}", style)
        rows.append([finding.name, status, _verdict(finding, with_figures)])
    head = [Column("finding", no_wrap=True), Column("status", no_wrap=True), Column("verdict", ratio=1)]
    return terminal_table(head, rows, _diagnosis_title(diagnosis), show_lines=True)


def diagnosis_markdown(diagnosis: Diagnosis) -> str:
    """Returns the verdicts as a table, then each finding's threshold and figures."""
    lines = [
        f"# {_diagnosis_title(diagnosis)}",
        "",
        f"Model `{diagnosis.model}`, seed {diagnosis.seed}, {diagnosis.created}, {diagnosis.device}.",
        "",
        markdown_table(
            ["finding", "status", "verdict"],
            ([each.name, each.status, markdown_cell(each.verdict)] for each in diagnosis.findings),
        ),
    ]
    for finding in diagnosis.findings:
        if finding.figures:
            lines += ["", f"## {finding.name}: {finding.status}", ""]
            lines += [f"{_sentence(finding.threshold)}", ""] if finding.threshold else []
            rows = [
                [markdown_cell(figure.name), figure.text, "" if figure.count is None else str(figure.count)]
                for figure in finding.figures
            ]
            lines.append(markdown_table(["figure", "value [95% interval]", "of"], rows))
    return "\n".join(lines) + "\n"


def write_diagnosis(diagnosis: Diagnosis, stem: Path) -> Path:
    """Writes STEM.json and STEM.md, each in one move, and returns the stem."""
    diagnosis.save(stem.with_name(f"{stem.name}.json"))
    write_atomically(stem.with_name(f"{stem.name}.md"), diagnosis_markdown(diagnosis))
    return stem


def _verdict(finding: Finding, with_figures: bool) -> RenderableType:
    parts: list[RenderableType] = [Text(finding.verdict)]
    if finding.threshold:
        parts.append(Text(finding.threshold, "dim"))
    if with_figures and finding.figures:
        rows = [
            [
                Text(figure.name),
                Text(figure.text, justify="right"),
                Text("" if figure.count is None else f"of {figure.count}", "dim"),
            ]
            for figure in finding.figures
        ]
        parts.append(terminal_table((), rows, box=None, show_header=False, pad_edge=False))
    return Group(*parts)


def _diagnosis_title(diagnosis: Diagnosis) -> str:
    accuracy = diagnosis.accuracy
    return (
        f"{diagnosis.method} on {diagnosis.benchmark}: {diagnosis.num_problems} problems, "
        f"accuracy {with_interval(accuracy.estimate, accuracy.low, accuracy.high)}"
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def attribution_table(found: Attribution) -> RenderableType:
    """Builds a table of accuracy with one model's latents and another's answers, and what each
    contributes.
    """
    parts = found.parts
    crossed = (
        ("before", "before", parts.accuracy_before),
        ("after", "before", parts.accuracy_latents),
        ("before", "after", parts.accuracy_answers),
        ("after", "after", parts.accuracy_after),
    )
    gains = (
        ("gain, points", parts.gain),
        ("of it the latents'", parts.from_latents),
        ("of it the answers'", parts.from_answers),
    )
    rows: list[Row | None] = [[*names, _interval(share, percent)] for *names, share in crossed]
    rows += [None, *([name, "", _interval(points, signed_points)] for name, points in gains)]
    title = f"{found.benchmark}, {found.num_problems} problems, greedy"
    return terminal_table(["latents of", "answered by", "accuracy"], rows, title, num_left=2)
