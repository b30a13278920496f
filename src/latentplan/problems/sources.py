"""Problems by name: what `--benchmark` and `dataset_name` may say.

load_benchmark("gsm8k", split="train")                  from the hub, through the `datasets` package
load_benchmark("svamp", file="SVAMP.json")              from a file in SVAMP's published format
load_benchmark("mine.jsonl")                            from a file whose columns tell its format
parse_benchmark_argument("owner/name").load()           from any data set of the hub
evaluation_set("minigsm:clock", limit=1000)             made by minigsm, with the settings of a preset

A local folder that is laid out like a data set of the hub is read like one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain as concatenate
from itertools import islice
from pathlib import Path
from typing import Any, cast

from latentplan.common.plugins import names_own_code
from latentplan.common.run_files import read_settings
from latentplan.problems.benchmarks import BENCHMARKS, Benchmark, benchmark_named, benchmark_names
from latentplan.problems.formats.own_data import ColumnMap, mapped_reader
from latentplan.problems.formats.row_format import RowReader
from latentplan.problems.formats.rows import NumberedRow
from latentplan.problems.minigsm import PRESETS, MinigsmConfig, generate
from latentplan.problems.minigsm.presets import Split
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.reading import (
    SAMPLE,
    Outcome,
    format_of_file,
    format_of_rows,
    outcomes_of_rows,
    scan_problems,
    strict,
)

Rows = Iterable[Mapping[str, Any]]
INSTALL = "pip install -c constraints.txt -e '.[datasets]'"


def hub_rows(
    name: str, config: str | None, split: str, *, streaming: bool = False, remedy: str = ""
) -> tuple[Rows, str | None]:
    """Returns the rows of a split, and a fingerprint of them where one is known before they are read.

    Args:
        name: the id on the hub, `owner/name`, or a local folder.
        config: its configuration; None takes its default.
        split: as the hub calls it.
        streaming: read while downloading, instead of downloading everything first.
        remedy: what else to do where it cannot be loaded; added to the error.

    Raises:
        DataError: the package is missing, or the data set, its configuration or split cannot be had.
    """
    remedy = f", {remedy}" if remedy else ""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(f"reading {name} needs the datasets package: {INSTALL}{remedy}") from error
    options: dict[str, Any] = {"streaming": True} if streaming else {}
    try:
        rows = load_dataset(name, config, split=split, **options)
    except Exception as error:  # datasets passes on whatever its network stack raises
        raise _unavailable(name, error, remedy) from error
    known = _revision(name) if streaming else getattr(rows, "_fingerprint", None)
    return _guarded(rows, name, remedy), known


def _guarded(rows: Rows, name: str, remedy: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except Exception as error:  # a stream can break at any row
        raise _unavailable(name, error, remedy) from error


def _unavailable(name: str, error: Exception, remedy: str) -> DataError:
    return DataError(
        f"cannot load {name} from the hub ({type(error).__name__}: {error}); check its name, its split, its "
        f"configuration and the network{remedy}"
    )


def _revision(name: str) -> str | None:
    """Returns the commit that the hub has now; None for a folder, or where the hub does not say."""
    if Path(name).exists():
        return None
    try:
        from huggingface_hub import dataset_info

        return dataset_info(name).sha
    except Exception:  # no network, no such set, or a folder: then its rows tell
        return None


MAPPED = "mapped columns"
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?::([\w.-]+))?")
_FILE_SUFFIX = re.compile(r"\.(jsonl?|csv|tsv|txt|parquet|gz|zip|ya?ml|py)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    """How data is read, beyond which data it is.

    Attributes:
        split: which part to take from the hub; a file is taken whole.
        chain: what the steps are made of, `"equations"` or `"sentences"`; by default the benchmark's, or the
            format's.
        columns: which column holds which field, see `mapped_reader`; a named benchmark needs none.
        streaming: read a hub data set while downloading it.
        limit: how many rows to read at most.
    """

    split: str = "test"
    chain: str | None = None
    columns: ColumnMap | None = None
    streaming: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """Problems being read.

    Attributes:
        source: the file, or the hub's id and split.
        format: the name of its format.
        outcomes: every row in order, as a problem or as its error.
        fingerprint: of the rows, where the source knows one before they are read; else None.
    """

    source: str
    format: str
    outcomes: Iterator[Outcome]
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkArgument:
    """What `NAME`, `FILE`, `NAME=FILE`, `owner/name` or `owner/name:config` stands for.

    Attributes:
        benchmark: a named benchmark, or the user's own as `package.module:NAME`, read from `file` or else
            from the hub.
        file: a data file.
        hub: any other data set of the hub, or a folder that is laid out like one.
        config: its configuration.
    """

    benchmark: str | None
    file: Path | None
    hub: str | None = None
    config: str | None = None

    @property
    def label(self) -> str:
        """A short name for tables: the benchmark's or the hub's, else the file's without its suffix."""
        if self.benchmark is not None:
            return benchmark_named(self.benchmark).name
        return self.hub or (self.file.stem if self.file else "")

    def load(
        self,
        *,
        split: str = "test",
        chain: str | None = None,
        limit: int | None = None,
        columns: ColumnMap | None = None,
    ) -> list[Problem]:
        """Returns its problems; arguments and errors as in `load_benchmark` and `Reading`."""
        scan = self.scan(Reading(split=split, chain=chain, columns=columns, limit=limit))
        return [strict(outcome) for _, outcome in scan.outcomes]

    def scan(self, reading: Reading) -> Scan:
        """Returns its rows one after another. Raises DataError at once if there are none to be had."""
        scan = self._scan(reading)
        return replace(scan, outcomes=islice(scan.outcomes, reading.limit))

    def _scan(self, reading: Reading) -> Scan:
        if self.benchmark is not None:
            benchmark = benchmark_named(self.benchmark)
            chain = reading.chain or benchmark.chain
            if self.file is None:
                return _scan_benchmark_of_hub(benchmark, chain, reading)
            outcomes = scan_problems(self.file, benchmark.format, chain=chain)
            return Scan(str(self.file), benchmark.name, outcomes)
        if self.hub is not None:
            return _scan_hub(self.hub, self.config, reading)
        file = self.file or Path()
        name = None if reading.columns else format_of_file(file).name
        outcomes = scan_problems(file, name, chain=reading.chain, columns=reading.columns)
        return Scan(str(file), name or MAPPED, outcomes)


def parse_benchmark_argument(argument: str) -> BenchmarkArgument:
    """Read `svamp`, `problems.jsonl`, `svamp=SVAMP.json`, `owner/name` or `package.module:NAME`.

    Raises:
        DataError: it is none of these.
    """
    name, equals, file = argument.partition("=")
    if argument in BENCHMARKS:
        return BenchmarkArgument(argument, None)
    if equals and name in BENCHMARKS and file:
        return BenchmarkArgument(name, Path(file))
    if argument and Path(argument).is_file():
        return BenchmarkArgument(None, Path(argument))
    if argument and Path(argument).is_dir():
        return BenchmarkArgument(None, None, hub=argument)
    hub = _HUB_ID.fullmatch(argument)
    if hub and not _FILE_SUFFIX.search(argument):
        return BenchmarkArgument(None, None, hub=hub[1], config=hub[2])
    if names_own_code(name) and bool(equals) == bool(file):
        benchmark_named(name)
        return BenchmarkArgument(name, Path(file) if file else None)
    raise DataError(
        f"{argument!r} is neither a file, nor NAME or NAME=FILE with a benchmark: {benchmark_names()}; nor a "
        "data set of the hub: owner/name; nor your own package.module:NAME"
    )


def load_benchmark(
    name_or_path: str | os.PathLike[str],
    *,
    split: str = "test",
    file: str | os.PathLike[str] | None = None,
    benchmark: str | None = None,
    chain: str | None = None,
    limit: int | None = None,
) -> list[Problem]:
    """Returns the problems of a benchmark, from a file if one is given, else from the hub; or those of any
    file.

    Args:
        name_or_path: a benchmark's name (with a `file` also `package.module:NAME`), or a file.
        split: which part of the benchmark to take from the hub; a file is taken whole.
        file: where the named benchmark lies.
        benchmark: whose format a file given as `name_or_path` has; by default its columns tell.
        chain: what the steps are made of, `"equations"` or `"sentences"`; by default the benchmark's.
        limit: how many problems to read at most.

    Raises:
        DataError: an unknown name or split, a broken row (with file, line and reason), or no way to the hub.
    """
    name = benchmark
    if str(name_or_path) in BENCHMARKS or (file is not None and names_own_code(str(name_or_path))):
        name = str(name_or_path)
    elif file is None:
        file = name_or_path
    if name is None and not Path(file or "").exists():
        raise DataError(
            f"{os.fspath(file or '')!r} is neither a file nor a benchmark; choose from: {benchmark_names()}"
        )
    argument = BenchmarkArgument(name, None if file is None else Path(file))
    return argument.load(split=split, chain=chain, limit=limit)


def _scan_benchmark_of_hub(benchmark: Benchmark, chain: str, reading: Reading) -> Scan:
    if benchmark.hub is None:
        raise DataError(
            f"{benchmark.name} is not on the hub: get its file from {benchmark.source}, then pass "
            f"{benchmark.name}=FILE"
        )
    if reading.split not in benchmark.splits:
        raise DataError(
            f"{benchmark.name} has no split {reading.split!r}; choose from: {', '.join(benchmark.splits)}"
        )
    split = benchmark.splits[reading.split]
    remedy = f"or pass a local file: {benchmark.name}=FILE, from {benchmark.source}"
    rows, known = hub_rows(benchmark.hub, benchmark.config, split, streaming=reading.streaming, remedy=remedy)
    read, source = benchmark.format.reader(chain), f"{benchmark.hub} ({split})"
    outcomes = outcomes_of_rows(enumerate(rows, start=1), read, source=source)
    return Scan(source, benchmark.name, outcomes, known)


def _scan_hub(name: str, config: str | None, reading: Reading) -> Scan:
    rows, known = hub_rows(name, config, reading.split, streaming=reading.streaming)
    source = f"{name} ({reading.split})"
    numbered: Iterator[NumberedRow] = enumerate(rows, start=1)
    if reading.columns:
        read: RowReader = mapped_reader(reading.columns, reading.chain)
        return Scan(source, MAPPED, outcomes_of_rows(numbered, read, source=source), known)
    opening = list(islice(numbered, SAMPLE))
    named = format_of_rows(opening, source=source)
    outcomes = outcomes_of_rows(concatenate(opening, numbered), named.reader(reading.chain), source=source)
    return Scan(source, named.name, outcomes, known)


MINIGSM_PROBLEMS = 1000
"""Problems of a minigsm preset's test split, where no number is given; always drawn with seed 0."""


def evaluation_set(
    argument: str, *, limit: int | None = None, split: str = "test", columns: ColumnMap | None = None
) -> tuple[str, Callable[[], list[Problem]]]:
    """Returns the label of an evaluation set, and the function that loads it.

    Args:
        argument: `minigsm:PRESET`, NAME, FILE, NAME=FILE, or a data set of the hub, owner/name.
        limit: how many problems at most; of minigsm exactly so many.
        split: which part to take; of minigsm `test` or `validation`.
        columns: which column holds which field, where the data has no known format.

    Raises:
        DataError: the argument names nothing. Loading raises it too, for what cannot be read, and ValueError
            where minigsm has fewer distinct problems than requested.
    """
    preset = minigsm_preset(argument)
    if preset is not None:
        count = limit or MINIGSM_PROBLEMS
        return argument, lambda: list(generate(preset, split=cast(Split, split), count=count, seed=0))
    parsed = parse_benchmark_argument(argument)
    return parsed.label, lambda: parsed.load(split=split, limit=limit, columns=columns)


def place_in_set(
    argument: str,
    problem: Problem | None,
    *,
    split: str = "test",
    columns: ColumnMap | None = None,
) -> str:
    """Finds file and line of a problem of an evaluation set, which is read again; see `evaluation_set`."""
    if minigsm_preset(argument) is not None:
        return argument
    scan = parse_benchmark_argument(argument).scan(Reading(split=split, columns=columns))
    line = next((line for line, outcome in scan.outcomes if outcome == problem), None)
    return scan.source if line is None else f"{scan.source}:{line}"


def minigsm_preset(argument: str) -> MinigsmConfig | None:
    """Returns the generator settings that `minigsm:PRESET` names; None for other arguments, and where
    a file has that name.

    Raises:
        DataError: there is no such preset.
    """
    name, colon, preset = argument.partition(":")
    if name != "minigsm" or Path(argument).exists():
        return None
    if not colon or preset not in PRESETS:
        raise DataError(f"{argument!r} is no minigsm preset; write minigsm:NAME with {', '.join(PRESETS)}")
    return PRESETS[preset]


def load_benchmarks(
    arguments: list[str],
    num_problems: int | None,
    *,
    split: str = "test",
    columns: ColumnMap | None = None,
) -> dict[str, list[Problem]]:
    """Returns the problems of each benchmark argument by its label.

    Raises:
        DataError: an argument names nothing, two have the same label, or a file is empty or cannot be read.
        ValueError: minigsm has fewer distinct problems than requested.
    """
    problems: dict[str, list[Problem]] = {}
    for argument in arguments:
        label, load = evaluation_set(argument, limit=num_problems, split=split, columns=columns)
        if label in problems:
            raise DataError(f"two benchmarks are called {label!r}: evaluate them in two calls, with --output")
        problems[label] = load()
        if not problems[label]:
            raise DataError(f"{argument!r} holds no problems")
    return problems


def own_preset(run: Path | None) -> str:
    """Returns the `minigsm:PRESET` that a run was trained on.

    Raises:
        ValueError: there is no run around the model, or it was trained on something else.
    """
    config = read_settings(run) if run else {}
    if config.get("dataset_name") == ["minigsm"]:
        preset = config.get("dataset_config") or "clock"  # as training takes it
        if preset in PRESETS:
            return f"minigsm:{preset}"
    raise ValueError("which problems? name a --benchmark: the model belongs to no run on a minigsm preset")
