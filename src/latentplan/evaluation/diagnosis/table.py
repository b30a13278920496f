"""A diagnosis for people: a table on the terminal, and Markdown."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from latentplan.evaluation.diagnosis.findings import (
    FAILED,
    NOT_APPLICABLE,
    NOTED,
    SOUND,
    UNCLEAR,
    Diagnosis,
    Finding,
)

# A sign beside each word, so that nothing rests on colour.
LOOKS = {
    SOUND: ("✓", "green"),
    FAILED: ("✗", "bold red"),
    UNCLEAR: ("?", "yellow"),
    NOTED: ("·", "cyan"),
    NOT_APPLICABLE: ("–", "dim"),
}


def diagnosis_table(diagnosis: Diagnosis, with_figures: bool = False) -> RenderableType:
    """A row for each finding; below it, where asked for, its figures."""
    table = Table(header_style="bold", show_lines=True, title=_title(diagnosis), title_justify="left")
    table.add_column("finding", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("verdict", ratio=1)
    for finding in diagnosis.findings:
        sign, style = LOOKS[finding.status]
        table.add_row(finding.name, Text(f"{sign} {finding.status}", style), _verdict(finding, with_figures))
    return table


def diagnosis_markdown(diagnosis: Diagnosis) -> str:
    """The verdicts as a table, then each finding's threshold and figures."""
    lines = [
        f"# {_title(diagnosis)}",
        "",
        f"Model `{diagnosis.model}`, seed {diagnosis.seed}, {diagnosis.created}, {diagnosis.device}.",
        "",
        "| finding | status | verdict |",
        "| --- | --- | --- |",
        *(f"| {each.name} | {each.status} | {_cell(each.verdict)} |" for each in diagnosis.findings),
    ]
    for finding in diagnosis.findings:
        if finding.figures:
            lines += ["", f"## {finding.name}: {finding.status}", ""]
            lines += [f"{_sentence(finding.threshold)}", ""] if finding.threshold else []
            lines += ["| figure | value [95% interval] | of |", "| --- | --- | --- |"]
            lines += [
                f"| {_cell(figure.name)} | {figure.text} | {'' if figure.count is None else figure.count} |"
                for figure in finding.figures
            ]
    return "\n".join(lines) + "\n"


def _verdict(finding: Finding, with_figures: bool) -> RenderableType:
    parts: list[RenderableType] = [Text(finding.verdict)]
    if finding.threshold:
        parts.append(Text(finding.threshold, "dim"))
    if with_figures and finding.figures:
        figures = Table(box=None, show_header=False, pad_edge=False)
        for figure in finding.figures:
            count = "" if figure.count is None else f"of {figure.count}"
            figures.add_row(Text(figure.name), Text(figure.text, justify="right"), Text(count, "dim"))
        parts.append(figures)
    return Group(*parts)


def _title(diagnosis: Diagnosis) -> str:
    accuracy = diagnosis.accuracy
    interval = (
        ""
        if accuracy.low is None or accuracy.high is None
        else (f" [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]")
    )
    return (
        f"{diagnosis.method} on {diagnosis.benchmark}: {diagnosis.num_problems} problems, "
        f"accuracy {accuracy.estimate:.1%}{interval}"
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
