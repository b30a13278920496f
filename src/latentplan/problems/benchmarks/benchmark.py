"""The table of named benchmarks: what each is, and where it is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from latentplan.problems.problem import DataError


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


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of this name. Raises DataError if there is none."""
    if name not in BENCHMARKS:
        raise DataError(f"there is no benchmark {name!r}; choose from: {benchmark_names()}")
    return BENCHMARKS[name]


def benchmark_names() -> str:
    """Every name, for messages."""
    return ", ".join(BENCHMARKS)
