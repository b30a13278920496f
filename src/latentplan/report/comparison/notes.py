"""What a reader has to know to judge whether a comparison is fair."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from latentplan.report.comparison.columns import NumberRow
from latentplan.report.comparison.measures import Comparison, Row, is_close
from latentplan.report.wording import count, percent

_BUDGETS = {
    "recipes": "Each recipe trains for as long as it says.",
    "steps": "Equal optimisation steps: supervised rows take as many as the first of them, RL rows as many "
    "as the first of RL; a run that others start from but that is no row keeps its length.",
    "flops": "Equal training FLOPs: supervised rows are made as long as costs as much as the first of them, "
    "by what a step of each stage costs; RL rows, whose cost depends on what they sample, keep their length.",
}


def notes(comparison: Comparison, rows: Sequence[NumberRow]) -> list[str]:
    """Sentences, in the order of their weight."""
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
    """Which rows had more or fewer steps, data passes or FLOPs than the first that is trained like them."""
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
    """Whether the chosen rate is one of the outer ones, and better than the others."""
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
    """Each kind of warning once, as the first evaluation that has it gave it."""
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
