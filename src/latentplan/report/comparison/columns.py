"""The columns of the tables: one flat row of numbers for each method and benchmark, None where unmeasured."""

from __future__ import annotations

from typing import Any

from latentplan.report.comparison.measures import (
    Comparison,
    Row,
    accuracy,
    coherence,
    data_passes,
    latents_matter,
    mean,
    over_seeds,
    pass_at_k,
    problems_per_second,
    recorded,
    steps,
)

NumberRow = dict[str, Any]


def flat_rows(comparison: Comparison) -> list[NumberRow]:
    """Every method on every benchmark, as `table.csv` has it."""
    return [
        {**_what(row, benchmark), **_measured(row, benchmark), **_cost(row), **_sampled(row, benchmark)}
        for benchmark in comparison.benchmarks
        for row in comparison.rows
    ]


def _what(row: Row, benchmark: str) -> NumberRow:
    return {
        "benchmark": benchmark,
        "name": row.name,
        "method": row.title,
        "recipe": row.entry["recipe"],
        "seeds": len([run for run in row.runs if run.results.get(benchmark)]),
    }


def _measured(row: Row, benchmark: str) -> NumberRow:
    estimate, low, high = accuracy(row, benchmark)
    paths = {
        "tokens": ("tokens", "mean"),
        "latents": ("tokens", "latents"),
        "text_tokens": ("tokens", "text"),
        "plan_score": ("plan_score",),
        "reconstruction": ("reconstruction", "teacher_exact"),
        "accuracy_zeroed": ("latent_use", "zero"),
        "accuracy_noise": ("latent_use", "noise"),
        "accuracy_other_question": ("latent_use", "other_question"),
    }
    return {
        "accuracy": estimate,
        "accuracy_low": low,
        "accuracy_high": high,
        "coherence": coherence(row, benchmark),
        **{name: over_seeds(row, benchmark, *path) for name, path in paths.items()},
        "latents_matter": latents_matter(row, benchmark),
        "problems_per_second": problems_per_second(row, benchmark),
    }


def _cost(row: Row) -> NumberRow:
    return {
        "steps": steps(row),
        "data_passes": data_passes(row),
        "training_tokens": recorded(row, "tokens_trained"),
        "training_seconds": recorded(row, "seconds"),
        "training_flops": recorded(row, "flops"),
        "seconds_with_starts": row.total_seconds,
        "flops_with_starts": row.total_flops,
        "learning_rate": mean(run.config.get("learning_rate") for run in row.runs),
    }


def _sampled(row: Row, benchmark: str) -> NumberRow:
    return {f"pass@{k}": value for k, value in pass_at_k(row, benchmark).items()}
