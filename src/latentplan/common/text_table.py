"""Tables on the terminal, in Markdown, CSV and LaTeX, and numbers as readers see them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Column, Table

ABSENT = "–"
"""What stands where nothing was measured."""


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def percent(value: Any) -> str:
    """Writes a share: `84.5%`."""
    return f"{100 * value:.1f}%" if is_number(value) else ABSENT


def points(value: Any) -> str:
    """Writes a share in percentage points: `84.5`."""
    return f"{100 * value:.1f}" if is_number(value) else ABSENT


def signed_points(value: Any) -> str:
    """Writes a difference of shares in percentage points: `+2.5`."""
    return f"{100 * value:+.1f}" if is_number(value) else ABSENT


def with_interval(
    estimate: Any,
    low: Any,
    high: Any,
    write: Callable[[Any], str] = percent,
    write_bound: Callable[[Any], str] = points,
) -> str:
    """Writes a share with its interval, `84.5% [82.0, 87.0]`; the share alone where a bound is absent."""
    if not all(map(is_number, (estimate, low, high))):
        return write(estimate)
    return f"{write(estimate)} [{write_bound(low)}, {write_bound(high)}]"


def decimal(value: Any, digits: int = 1) -> str:
    """Writes a number with this many decimals."""
    return f"{value:.{digits}f}" if is_number(value) else ABSENT


def count(value: Any) -> str:
    """Writes a whole number: `1,234`, and `1.23M` from a million on."""
    if not is_number(value):
        return ABSENT
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:,.0f}"


def scientific(value: Any) -> str:
    """Writes a large number: `1.20e13`."""
    if not is_number(value):
        return ABSENT
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits}e{int(exponent)}"


def short(value: float) -> str:
    """Writes a number of a plot in as few characters as it takes: `0.02`, `1e-06`, `3000`."""
    return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= 1e6 else f"{value:.0f}"


def duration(seconds: Any) -> str:
    """Writes how long something took: `0.4 s`, `64 s`, `5 min 10 s`, `2 h 05 min`."""
    if not is_number(seconds):
        return ABSENT
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    return _hours(minutes)


def rough_duration(seconds: float) -> str:
    """Writes how long something will take: `40 s`, `3 min`, `2 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else _hours(minutes)


def _hours(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60:02d} min"


def p_value(p: float) -> str:
    """Writes a p-value in a sentence: `p < 0.001`, `p = 0.03`."""
    shown = "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.01 else f"= {p:.2f}"
    return f"p {shown}".replace(" ", "\u00a0")


def p_value_cell(p: float) -> str:
    """Writes a p-value in a column of them: `< 0.001`, `0.031`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def terminal_table(
    head: Sequence[Column | str],
    rows: Iterable[Sequence[RenderableType] | None],
    title: str | None = None,
    num_left: int = 1,
    **look: Any,
) -> Table:
    """Builds a table for a rich console.

    Args:
        head: a name or a rich column for each column; empty for a table without a head.
        rows: the cells of each row; None draws a line.
        title: above the table, flush left.
        num_left: how many of the columns named in `head` are flush left; the others are flush right.
        look: further settings of rich's `Table`.
    """
    columns = [
        name if isinstance(name, Column) else Column(name, justify="left" if index < num_left else "right")
        for index, name in enumerate(head)
    ]
    table = Table(*columns, **{"title": title, "title_justify": "left", "header_style": "bold", **look})
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*row)
    return table


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], num_left: int | None = None) -> str:
    """Writes a table in Markdown, whose cells are Markdown.

    Args:
        head: the names of the columns.
        rows: the cells of each row.
        num_left: how many columns are flush left, the others flush right; None leaves it to the reader.
    """
    rule = ["---" if num_left is None or index < num_left else "---:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def markdown_cell(text: str, html: bool = False) -> str:
    """Escapes a text for a cell of a Markdown table.

    Args:
        text: any.
        html: whether the reader renders HTML, so that tags are escaped and line breaks become tags.
    """
    text = text.replace("|", "\\|")
    return text.replace("<", "&lt;").replace("\n", "<br>") if html else text


def csv_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Writes a table in CSV: values as they are, an empty cell for None."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return stream.getvalue()


def csv_of_mappings(rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes rows in CSV, with a column for each key that one of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return csv_table(names, ([row.get(name) for name in names] for row in rows))


_ESCAPES = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", ABSENT: "--"}


def latex_table(head: Sequence[str], groups: Mapping[str, Iterable[Sequence[str]]], comment: str) -> str:
    """Writes a booktabs table in LaTeX.

    Args:
        head: the names of the columns; all but the first are flush right.
        groups: the rows below each heading.
        comment: above the table, one line.
    """
    lines = [
        f"% {comment}",
        r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}",
        r"\toprule",
        _latex_line(head),
    ]
    for heading, rows in groups.items():
        lines += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{l}}{{{_latex_cell(heading)}}} \\"]
        lines += [_latex_line(row) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(_latex_cell(cell) for cell in cells) + r" \\"


def _latex_cell(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)
