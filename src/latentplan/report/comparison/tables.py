"""The tables as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latentplan.report.comparison.columns import NumberRow
from latentplan.report.comparison.pairs import Pair
from latentplan.report.run_reader import is_number
from latentplan.report.wording import ABSENT, decimal, duration, percent

MOST_PAIRS = 15
"""Pairs in the Markdown table; with more rows only those with the reference are shown."""

Column = tuple[str, Callable[[NumberRow], str]]


def accuracy_cell(row: NumberRow) -> str:
    """`84.5% [82.0, 87.0]`."""
    if not is_number(row["accuracy"]):
        return ABSENT
    if not (is_number(row["accuracy_low"]) and is_number(row["accuracy_high"])):
        return percent(row["accuracy"])
    low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
    return f"{percent(row['accuracy'])} [{low:.1f}, {high:.1f}]"


def scientific(value: Any) -> str:
    """`1.2e13`."""
    if not is_number(value):
        return ABSENT
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits}e{int(exponent)}"


def points(value: Any) -> str:
    """Percentage points with their sign."""
    return f"{100 * value:+.1f}" if is_number(value) else ABSENT


QUALITY: list[Column] = [
    ("method", lambda row: row["method"]),
    ("accuracy", accuracy_cell),
    ("tokens", lambda row: decimal(row["tokens"])),
    ("of which latents", lambda row: decimal(row["latents"])),
    ("coherence", lambda row: percent(row["coherence"])),
    ("reconstruction", lambda row: percent(row["reconstruction"])),
    ("latents matter", lambda row: points(row["latents_matter"])),
    ("problems/s", lambda row: decimal(row["problems_per_second"], 0)),
]
COST: list[Column] = [
    ("method", lambda row: row["method"]),
    ("steps", lambda row: decimal(row["steps"], 0)),
    ("data passes", lambda row: decimal(row["data_passes"], 2)),
    ("tokens", lambda row: scientific(row["training_tokens"])),
    ("time", lambda row: duration(row["training_seconds"])),
    ("FLOPs", lambda row: scientific(row["training_flops"])),
    ("time with starts", lambda row: duration(row["seconds_with_starts"])),
    ("FLOPs with starts", lambda row: scientific(row["flops_with_starts"])),
    ("learning rate", lambda row: f"{row['learning_rate']:g}" if is_number(row["learning_rate"]) else ABSENT),
]


def markdown(
    plan: Mapping[str, Any], rows: Sequence[NumberRow], pairs: Sequence[Pair], notes: Sequence[str]
) -> str:
    """The whole comparison as one Markdown document."""
    parts = [f"# {plan['title']}", f"`{plan['command']}`"]
    if plan["says"]:
        parts.append(plan["says"])
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        mine = [row for row in rows if row["benchmark"] == benchmark]
        parts += [f"## {benchmark}", markdown_table(QUALITY, mine)]
        powers = [key for key in mine[0] if key.startswith("pass@")]
        if powers:
            parts += [
                "Sampled at temperature 1:",
                markdown_table([QUALITY[0], *map(_pass_column, powers)], mine),
            ]
        shown = _shown([pair for pair in pairs if pair.benchmark == benchmark], plan["reference"])
        if shown:
            parts += ["Pairs on the same problems (b against a):", _pair_table(shown, rows)]
    first = [row for row in rows if row["benchmark"] == rows[0]["benchmark"]]
    parts += ["## Training cost", markdown_table(COST, first), "## Notes", _listed(notes)]
    return "\n\n".join(parts) + "\n"


def _pass_column(key: str) -> Column:
    return key, lambda row: percent(row.get(key))


def _listed(notes: Sequence[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)


def _shown(pairs: Sequence[Pair], reference: str) -> list[Pair]:
    return list(pairs) if len(pairs) <= MOST_PAIRS else [pair for pair in pairs if pair.a == reference]


def _pair_table(pairs: Sequence[Pair], rows: Sequence[NumberRow]) -> str:
    titles = {row["name"]: row["method"] for row in rows}
    columns: list[tuple[str, Callable[[Pair], str]]] = [
        ("a", lambda pair: titles[pair.a]),
        ("b", lambda pair: titles[pair.b]),
        ("points", lambda pair: points(pair.difference)),
        ("95%, problems", lambda pair: f"{points(pair.low)} to {points(pair.high)}"),
        ("95%, seeds", lambda pair: f"{points(pair.seeds_low)} to {points(pair.seeds_high)}"),
        ("p", lambda pair: _p(pair.p_value)),
        ("p, Holm", lambda pair: _p(pair.p_holm)),
    ]
    return _grid([name for name, _ in columns], [[cell(pair) for _, cell in columns] for pair in pairs])


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def markdown_table(columns: Sequence[Column], rows: Sequence[NumberRow]) -> str:
    """A table without the columns that no row has anything in."""
    kept = [(name, cell) for name, cell in columns if any(cell(row) != ABSENT for row in rows)]
    return _grid([name for name, _ in kept], [[cell(row) for _, cell in kept] for row in rows])


def _grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *body])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Numbers as they are; an empty cell where nothing was measured."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


_LATEX: list[Column] = [
    *QUALITY[:3],
    QUALITY[4],
    ("FLOPs with starts", lambda row: scientific(row["flops_with_starts"])),
]
_ESCAPES = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", ABSENT: "--"}


def latex(plan: Mapping[str, Any], rows: Sequence[NumberRow]) -> str:
    """A booktabs table: accuracy with its interval, tokens, coherence and training FLOPs with starts."""
    lines = [
        "% " + str(plan["command"]),
        r"\begin{tabular}{l" + "r" * (len(_LATEX) - 1) + "}",
        r"\toprule",
        _latex_line(name for name, _ in _LATEX),
    ]
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        lines += [r"\midrule", rf"\multicolumn{{{len(_LATEX)}}}{{l}}{{{_escaped(benchmark)}}} \\"]
        lines += [
            _latex_line(cell(row) for _, cell in _LATEX) for row in rows if row["benchmark"] == benchmark
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_line(cells: Any) -> str:
    return " & ".join(_escaped(cell) for cell in cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)
