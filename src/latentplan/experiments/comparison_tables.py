"""The tables of `latentplan compare` in Markdown, CSV, JSON and LaTeX, with a plot and notes.

They are made from `compare.json` and what the run directories hold now. The notes say what a reader has to
know to judge whether a comparison is fair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentplan.common.files import write_atomically
from latentplan.common.text_table import (
    ABSENT,
    count,
    csv_of_mappings,
    decimal,
    duration,
    is_number,
    latex_table,
    markdown_table,
    p_value_cell,
    percent,
    scientific,
    signed_points,
    with_interval,
)
from latentplan.experiments.comparison_results import (
    Comparison,
    NumberRow,
    Pair,
    Row,
    all_pairs,
    flat_rows,
    is_close,
    read_comparison,
)
from latentplan.report.figures.accuracy_tokens import draw_comparison

MOST_PAIRS = 15
"""Pairs in the Markdown table; with more rows only those with the reference are shown."""

Column = tuple[str, Callable[[NumberRow], str]]


def accuracy_cell(row: NumberRow) -> str:
    """Writes the accuracy of a row with its interval."""
    return with_interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"])


QUALITY: list[Column] = [
    ("method", lambda row: row["method"]),
    ("accuracy", accuracy_cell),
    ("tokens", lambda row: decimal(row["tokens"])),
    ("of which latents", lambda row: decimal(row["latents"])),
    ("coherence", lambda row: percent(row["coherence"])),
    ("reconstruction", lambda row: percent(row["reconstruction"])),
    ("latents matter", lambda row: signed_points(row["latents_matter"])),
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
    """Returns the whole comparison as one Markdown document."""
    parts = [f"# {plan['title']}", f"`{plan['command']}`"]
    if plan["says"]:
        parts.append(plan["says"])
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        mine = [row for row in rows if row["benchmark"] == benchmark]
        parts += [f"## {benchmark}", _measured_table(QUALITY, mine)]
        powers = [key for key in mine[0] if key.startswith("pass@")]
        if powers:
            parts += [
                "Sampled at temperature 1:",
                _measured_table([QUALITY[0], *map(_pass_column, powers)], mine),
            ]
        shown = _shown([pair for pair in pairs if pair.benchmark == benchmark], plan["reference"])
        if shown:
            parts += ["Pairs on the same problems (b against a):", _pair_table(shown, rows)]
    first = [row for row in rows if row["benchmark"] == rows[0]["benchmark"]]
    parts += ["## Training cost", _measured_table(COST, first), "## Notes", _listed(notes)]
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
        ("points", lambda pair: signed_points(pair.difference)),
        ("95%, problems", lambda pair: f"{signed_points(pair.low)} to {signed_points(pair.high)}"),
        ("95%, seeds", lambda pair: f"{signed_points(pair.seeds_low)} to {signed_points(pair.seeds_high)}"),
        ("p", lambda pair: p_value_cell(pair.p_value)),
        ("p, Holm", lambda pair: p_value_cell(pair.p_holm)),
    ]
    return markdown_table(
        [name for name, _ in columns], [[cell(pair) for _, cell in columns] for pair in pairs], 1
    )


def _measured_table(columns: Sequence[Column], rows: Sequence[NumberRow]) -> str:
    """Writes a table without the columns that no row has anything in."""
    kept = [(name, cell) for name, cell in columns if any(cell(row) != ABSENT for row in rows)]
    return markdown_table([name for name, _ in kept], [[cell(row) for _, cell in kept] for row in rows], 1)


_LATEX: list[Column] = [
    *QUALITY[:3],
    QUALITY[4],
    ("FLOPs with starts", lambda row: scientific(row["flops_with_starts"])),
]


def latex(plan: Mapping[str, Any], rows: Sequence[NumberRow]) -> str:
    """Returns a booktabs table: accuracy with its interval, tokens, coherence and training FLOPs with
    starts.
    """
    groups = {
        benchmark: [[cell(row) for _, cell in _LATEX] for row in rows if row["benchmark"] == benchmark]
        for benchmark in dict.fromkeys(row["benchmark"] for row in rows)
    }
    return latex_table([name for name, _ in _LATEX], groups, comment=str(plan["command"]))


_BUDGETS = {
    "recipes": "Each recipe trains for as long as it says.",
    "steps": "Equal optimisation steps: supervised rows take as many as the first of them, RL rows as many "
    "as the first of RL; a run that others start from but that is no row keeps its length.",
    "flops": "Equal training FLOPs: supervised rows are made as long as costs as much as the first of them, "
    "by what a step of each stage costs; RL rows, whose cost depends on what they sample, keep their length.",
}


def notes(comparison: Comparison, rows: Sequence[NumberRow]) -> list[str]:
    """Writes sentences, in the order of their weight."""
    plan = comparison.plan
    seeds = plan["seeds"]
    return [
        *plan["notes"],
        _BUDGETS[plan["budget"]],
        *_unequal(comparison, rows),
        *_sweep(comparison),
        _seeds(seeds),
        "Training cost is of a row's own run; 'with starts' adds the runs that it starts from. FLOPs are "
        "estimated from parameters and tokens, not measured.",
        "Latents matter: by how many points accuracy falls when the latents are replaced by zeros, by noise "
        "or by another question's, whichever hurts least.",
        *_missing(comparison),
        *_warnings(comparison),
        *_machines(comparison),
    ]


def _seeds(seeds: Sequence[int]) -> str:
    listed = ", ".join(map(str, seeds))
    if len(seeds) == 1:
        return f"One seed ({listed}): the interval is Wilson's over problems and says nothing of other seeds."
    return (
        f"Seeds {listed}; intervals are Student's 95% over the {len(seeds)} seeds. Seeds change weights, the "
        "order of the data and noise; the problems to train on and to solve are the same, so that these "
        "intervals do not speak of other problems. Those of pairs over problems do."
    )


def _unequal(comparison: Comparison, rows: Sequence[NumberRow]) -> list[str]:
    """Says which rows had more or fewer steps, data passes or FLOPs than the first that is trained
    like them.
    """
    found = []
    labels = {"steps": "optimisation steps", "data_passes": "passes over the data", "training_flops": "FLOPs"}
    for command, kind in (("sft", "supervised"), ("grpo", "RL")):
        names = {row.name for row in comparison.rows if row.entry["command"] == command}
        same = {row["name"]: row for row in rows if row["name"] in names}
        for measure, label in labels.items():
            known = {row["method"]: row[measure] for row in same.values() if row[measure] is not None}
            first = next(iter(known.values()), None)
            others = {name: value for name, value in known.items() if first and not is_close(value, first)}
            if others:
                listed = ", ".join(f"{name} {_ratio(value / first)}" for name, value in others.items())
                found.append(f"Unequal {label} ({kind}), as multiples of {next(iter(known))}'s: {listed}.")
    return found


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _sweep(comparison: Comparison) -> list[str]:
    rates = comparison.plan["learning_rates"]
    if not rates:
        return ["Learning rates are those of the recipes; none was tuned here."]
    told = []
    for row in comparison.rows:
        sweep = row.entry["sweep"] or {}
        reached = ", ".join(
            f"{rate}: {percent(value)}" for rate, value in sweep.get("accuracies", {}).items()
        )
        told.append(f"{row.title} {sweep.get('chosen')} ({reached})")
    first = comparison.rows[0].entry["sweep"] or {}
    where = f"{first.get('num_problems')} problems of {first.get('benchmark')}, split {first.get('split')}"
    which = "each recipe's own times these" if "x" in rates else "the same"
    at_edge = [row.title for row in comparison.rows if _is_at_edge(row.entry["sweep"] or {})]
    edges = (
        [
            "The best learning rate was the smallest or the largest that was tried, so that another might do "
            f"better, for: {', '.join(at_edge)}."
        ]
        if at_edge
        else []
    )
    return [
        f"Learning rates, tried for every row ({which}: {rates}) on seed {first.get('seed')} and chosen by "
        f"accuracy on {where}: {'; '.join(told)}.",
        *edges,
    ]


def _is_at_edge(sweep: Mapping[str, Any]) -> bool:
    """Returns whether the chosen rate is one of the outer ones, and better than the others."""
    reached = {float(rate): value for rate, value in sweep.get("accuracies", {}).items()}
    if len(reached) < 2:
        return False
    best = [rate for rate, value in reached.items() if value == max(reached.values())]
    return len(best) == 1 and best[0] in (min(reached), max(reached))


def _missing(comparison: Comparison) -> list[str]:
    found = []
    for row in comparison.rows:
        lacking = [str(run.seed) for run in row.runs if not all(run.results.values()) or not run.results]
        if lacking:
            found.append(f"Not (wholly) evaluated: {row.title}, seeds {', '.join(lacking)}.")
    return found


def _warnings(comparison: Comparison) -> list[str]:
    return [line for row in comparison.rows for line in _warnings_of(row)]


def _warnings_of(row: Row) -> list[str]:
    """Returns each kind of warning once, as the first evaluation that has it gave it."""
    found: dict[str, list[str]] = {}
    for run in row.runs:
        for benchmark, result in run.results.items():
            for warning in result.get("warnings", []):
                text = f"{row.title}, {benchmark}, seed {run.seed}: {warning}"
                found.setdefault(re.sub("[0-9.]+", "", warning), []).append(text)
    more = "; likewise in {} of its other evaluations"
    return [texts[0] + (more.format(len(texts) - 1) if texts[1:] else "") + "." for texts in found.values()]


def _machines(comparison: Comparison) -> list[str]:
    records = [run.record for row in comparison.rows for run in row.runs if run.record]
    machines = sorted({str(record.get("machine")) for record in records})
    devices = sorted({str(record.get("device")) for record in records})
    versions = sorted({str((record.get("versions") or {}).get("torch")) for record in records})
    days = sorted({str(record.get("finished"))[:10] for record in records})
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "never"
    problems = sorted(
        {f"{each['label']} {count(each['num_problems'])}" for each in comparison.plan["benchmarks"]}
    )
    return [
        f"Machine: {'; '.join(machines)}; device {', '.join(devices)}; PyTorch {', '.join(versions)}; "
        f"trained {when}. Problems: {', '.join(problems)}."
    ]


def build_comparison(folder: Path) -> list[Path]:
    """Writes all files into the folder of `compare.json` and returns them.

    Raises:
        ValueError: the folder holds no comparison.
    """
    comparison = read_comparison(folder)
    plan, rows = comparison.plan, flat_rows(comparison)
    pairs = [pair for benchmark in comparison.benchmarks for pair in all_pairs(comparison, benchmark)]
    said = notes(comparison, rows)
    plots = draw_comparison(rows, folder)
    if not plots:
        said = [*said, "No plot: matplotlib is not installed (pip install 'latentplan[plot]')."]
    result = {
        **{key: plan[key] for key in ("title", "command", "seeds", "budget", "reference", "benchmarks")},
        "rows": rows,
        "pairs": [pair.to_json() for pair in pairs],
        "notes": said,
    }
    flat_pairs = [{**pair.to_json(), "mcnemar": json.dumps(pair.mcnemar)} for pair in pairs]
    texts = {
        "table.md": markdown(plan, rows, pairs, said),
        "table.csv": csv_of_mappings(rows),
        "pairs.csv": csv_of_mappings(flat_pairs),
        "table.tex": latex(plan, rows),
        "comparison.json": json.dumps(result, indent=2, ensure_ascii=False) + "\n",
    }
    return [*(write_atomically(folder / name, text) for name, text in texts.items()), *plots]
