"""The published benchmarks, one file a family: the readers of its rows and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentplan.problems.benchmarks.benchmark import (
    Benchmark,
    benchmark_named,
    benchmark_names,
    benchmarks,
)

BENCHMARKS: Mapping[str, Benchmark] = benchmarks()
"""Every built-in benchmark by name."""

__all__ = ["BENCHMARKS", "Benchmark", "benchmark_named", "benchmark_names"]


def __getattr__(name: str) -> Any:
    """What `problems.sources` holds, under the module name that it had before."""
    from latentplan.problems import sources

    return getattr(sources, name)
