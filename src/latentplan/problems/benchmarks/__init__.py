"""The published benchmarks, one file a family: the readers of its rows and what is known of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
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
    """Finds what `problems.sources` holds under its old name, with a notice."""
    try:
        found = getattr(import_module("latentplan.problems.sources"), name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    warnings.warn(
        f"{__name__}.{name} is latentplan.problems.sources.{name} now; the old name goes with "
        "the next version",
        DeprecationWarning,
        stacklevel=2,
    )
    return found
