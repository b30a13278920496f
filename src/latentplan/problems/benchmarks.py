"""The named benchmarks, and loading one from a file or from the Hugging Face hub.

load_benchmark("gsm8k", split="train")                  from the hub, through the `datasets` package
load_benchmark("svamp", file="SVAMP.json")              from a file in SVAMP's published format
load_benchmark("mine.jsonl")                            from a file whose columns tell its format
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from latentplan.problems.problem import DataError, Problem
from latentplan.problems.readers import format_named, outcomes_of_rows, read_problems, strict


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One published set of problems.

    Attributes:
        name: what users call it; also the name of its format, see `readers.FORMATS`.
        title: what it is, in a few words.
        source: where its files are published.
        chain: what its chains are made of by default.
        hub: its id on the Hugging Face hub, None if its publishers have not put it there.
        config: its configuration on the hub.
        splits: our split names, and the hub's.
    """

    name: str
    title: str
    source: str
    chain: str = "equations"
    hub: str | None = None
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)


_TRAIN_AND_TEST = {"train": "train", "test": "test"}
_TABLE = (
    Benchmark(
        "gsm8k",
        "grade-school mathematics with rationales (7473 train, 1319 test)",
        "github.com/openai/grade-school-math",
        hub="openai/gsm8k",
        config="main",
        splits=_TRAIN_AND_TEST,
    ),
    Benchmark(
        "gsm8k-aug",
        "GSM8K augmented to 385k problems, equations only",
        "the Implicit CoT release",
        hub="whynlp/gsm8k-aug",
        splits={"train": "train", "validation": "validation", "test": "test"},
    ),
    Benchmark(
        "gsm-hard",
        "GSM8K's test set with large numbers (1319)",
        "the PAL release",
        hub="reasoning-machines/gsm-hard",
        splits={"test": "train"},  # the hub calls its only split 'train'
    ),
    Benchmark(
        "svamp",
        "one- and two-step problems, reworded to be tricky (700 train, 300 test; the file holds all 1000)",
        "github.com/arkilpatel/SVAMP",
        hub="ChilleD/SVAMP",
        splits=_TRAIN_AND_TEST,
    ),
    Benchmark(
        "multiarith",
        "problems of several steps (420 train, 180 test; the file holds all 600)",
        "the MAWPS repository",
        hub="ChilleD/MultiArith",
        splits=_TRAIN_AND_TEST,
    ),
    Benchmark(
        "mawps-asdiv",
        "MAWPS and ASDiv-A, the usual training set for SVAMP (3138)",
        "github.com/arkilpatel/SVAMP, folder data/mawps-asdiv-a_svamp",
    ),
    Benchmark(
        "prosqa",
        "which of two, by a path through a graph told in sentences (300 valid, 500 test)",
        "github.com/facebookresearch/coconut, folder data",
        chain="sentences",
    ),
    Benchmark(
        "strategyqa",
        "yes/no questions that need several facts (2061 train, 229 dev)",
        "the StrategyQA release at allenai.org/data/strategyqa",
        chain="sentences",
    ),
)
BENCHMARKS: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in _TABLE}
"""Every benchmark by name."""


@dataclass(frozen=True, slots=True)
class BenchmarkArgument:
    """What `NAME`, `FILE` or `NAME=FILE` on a command line stands for; at least one of the two is given."""

    benchmark: str | None
    file: Path | None

    @property
    def label(self) -> str:
        """A short name for tables: the benchmark's, else the file's without its suffix."""
        return self.benchmark or (self.file.stem if self.file else "")

    def load(
        self, *, split: str = "test", chain: str | None = None, limit: int | None = None
    ) -> list[Problem]:
        """Its problems; arguments and errors as in `load_benchmark`."""
        if self.benchmark is None:
            return load_benchmark(self.file or "", chain=chain, limit=limit)
        return load_benchmark(self.benchmark, file=self.file, split=split, chain=chain, limit=limit)


def parse_benchmark_argument(argument: str) -> BenchmarkArgument:
    """Read `svamp`, `problems.jsonl` or `svamp=SVAMP.json`. Raises DataError if it is none of them."""
    name, equals, file = argument.partition("=")
    if argument in BENCHMARKS:
        return BenchmarkArgument(argument, None)
    if equals and name in BENCHMARKS and file:
        return BenchmarkArgument(name, Path(file))
    if Path(argument).is_file():
        return BenchmarkArgument(None, Path(argument))
    raise DataError(f"{argument!r} is neither a file, nor NAME or NAME=FILE with a benchmark: {_names()}")


def load_benchmark(
    name_or_path: str | os.PathLike[str],
    *,
    split: str = "test",
    file: str | os.PathLike[str] | None = None,
    benchmark: str | None = None,
    chain: str | None = None,
    limit: int | None = None,
) -> list[Problem]:
    """The problems of a benchmark, from a file if one is given, else from the hub; or those of any file.

    Args:
        name_or_path: a benchmark's name, or a file.
        split: which part of the benchmark to take from the hub; a file is taken whole.
        file: where the named benchmark lies.
        benchmark: whose format a file given as `name_or_path` has; by default its columns tell.
        chain: what the steps are made of, `"equations"` or `"sentences"`; by default the benchmark's.
        limit: how many problems to read at most.

    Raises:
        DataError: an unknown name or split, a broken row (with file, line and reason), or no way to the hub.
    """
    name = benchmark
    if str(name_or_path) in BENCHMARKS:
        name = str(name_or_path)
    elif file is None:
        file = name_or_path
    if file is None:
        return _from_hub(benchmark_named(str(name)), split, chain, limit)
    if name is None:
        return read_problems(_existing(file), chain=chain, limit=limit)
    known = benchmark_named(name)
    return read_problems(Path(file), known.name, chain=chain or known.chain, limit=limit)


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of this name. Raises DataError if there is none."""
    if name not in BENCHMARKS:
        raise DataError(f"there is no benchmark {name!r}; choose from: {_names()}")
    return BENCHMARKS[name]


def _existing(file: str | os.PathLike[str]) -> Path:
    if not Path(file).exists():
        raise DataError(f"{os.fspath(file)!r} is neither a file nor a benchmark; choose from: {_names()}")
    return Path(file)


def _from_hub(benchmark: Benchmark, split: str, chain: str | None, limit: int | None) -> list[Problem]:
    if benchmark.hub is None:
        raise DataError(
            f"{benchmark.name} is not on the hub: get its file from {benchmark.source}, then pass "
            f"{benchmark.name}=FILE"
        )
    if split not in benchmark.splits:
        raise DataError(
            f"{benchmark.name} has no split {split!r}; choose from: {', '.join(benchmark.splits)}"
        )
    rows = _hub_rows(benchmark, benchmark.splits[split])
    read = format_named(benchmark.name).reader(chain or benchmark.chain)
    source = f"{benchmark.hub} ({benchmark.splits[split]})"
    outcomes = outcomes_of_rows(enumerate(rows, start=1), read, source=source)
    return [strict(outcome) for _, outcome in islice(outcomes, limit)]


def _hub_rows(benchmark: Benchmark, split: str) -> Iterable[Mapping[str, Any]]:
    remedy = f"or pass a local file: {benchmark.name}=FILE, from {benchmark.source}"
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(
            f"reading {benchmark.name} from the hub needs the datasets package: "
            f"pip install -c constraints.txt -e '.[datasets]', {remedy}"
        ) from error
    try:
        return load_dataset(benchmark.hub, benchmark.config, split=split)
    except Exception as error:  # datasets passes on whatever its network stack raises
        raise DataError(
            f"cannot load {benchmark.hub} from the hub ({type(error).__name__}: {error}); "
            f"check the network, {remedy}"
        ) from error


def _names() -> str:
    return ", ".join(BENCHMARKS)
