"""The named benchmarks, one file a family: its readers and what is published of it."""

from __future__ import annotations

from typing import Any

from latentplan.problems.benchmarks.benchmark import BENCHMARKS, Benchmark, benchmark_named, benchmark_names

__all__ = ["BENCHMARKS", "Benchmark", "benchmark_named", "benchmark_names"]


def __getattr__(name: str) -> Any:
    """What `problems.sources` holds, under the module name that it had before."""
    from latentplan.problems import sources

    return getattr(sources, name)
