"""`Benchmark`: a published set of problems. A new one is one file of this folder, or of the user's own.

The file holds the reader of a row and a `Benchmark` with its format; it is found by its name, or as
`package.module:NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from latentplan.common.plugins import import_named, modules_of, names_own_code
from latentplan.problems.formats.row_format import Format
from latentplan.problems.problem import DataError

_PACKAGE = "latentplan.problems.benchmarks"
TRAIN_AND_TEST = {"train": "train", "test": "test"}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One published set of problems.

    Attributes:
        format: how its rows are told and read; its name is the benchmark's.
        title: what it is, in a few words.
        source: where its files are published.
        hub: its id on the Hugging Face hub, None if its publishers have not put it there.
        config: its configuration on the hub.
        splits: our split names, and the hub's.
    """

    format: Format
    title: str
    source: str
    hub: str | None = None
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What users call it."""
        return self.format.name

    @property
    def chain(self) -> str:
        """What its chains are made of by default."""
        return next(iter(self.format.chains))


@cache
def benchmarks() -> Mapping[str, Benchmark]:
    """Returns every built-in benchmark by name, in the order of the names."""
    found = [
        member
        for module in modules_of(_PACKAGE)
        for member in vars(module).values()
        if isinstance(member, Benchmark)
    ]
    return {benchmark.name: benchmark for benchmark in sorted(found, key=lambda each: each.name)}


def benchmark_named(name: str) -> Benchmark:
    """Returns the benchmark called `name`: a built-in one, or `package.module:NAME`.

    Raises:
        DataError: there is none.
    """
    if name in benchmarks():
        return benchmarks()[name]
    try:
        found = import_named(name, "benchmark", None) if names_own_code(name) else None
    except ValueError as error:
        raise DataError(str(error)) from error
    if not isinstance(found, Benchmark):
        raise DataError(f"there is no benchmark {name!r}; choose from: {benchmark_names()}")
    return found


def benchmark_names() -> str:
    """Returns every name, for messages."""
    return ", ".join(benchmarks())
