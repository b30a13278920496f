"""The problems of a run: read or generated, joined, and cleared of evaluation questions.

Small sets are lists. Those of more than `IN_MEMORY` problems, and those that are streamed, are stores on
disk, kept in the cache by the data that they were read from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import latentplan
from latentplan.common.plugins import setting
from latentplan.problems.decontamination import refuse_overlap
from latentplan.problems.disk_cache import Cache, cache_root
from latentplan.problems.fingerprint import question_keys
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.minigsm.presets import MinigsmConfig
from latentplan.problems.problem import Problem, UnknownFormatError
from latentplan.problems.problem_store import Found, ProblemStore, SelectedProblems, write_problems
from latentplan.problems.reading import strict
from latentplan.problems.sources import Reading, Scan, evaluation_set, parse_benchmark_argument

MINIGSM = "minigsm"
IN_MEMORY = 50_000
"""Problems of a run that are held in memory, at most; more are kept on disk."""
_SHOWN_EVERY = 1000


@dataclass
class DataArguments:
    """Which problems a run trains on."""

    dataset_name: list[str] = setting(
        ["minigsm"],
        "minigsm, a benchmark's name, a file, NAME=FILE, or a data set of the hub: owner/name; several are "
        "joined",
    )
    dataset_config: str | None = setting(
        None, "minigsm preset (absent: clock); or the configuration of a hub data set (absent: its default)"
    )
    dataset_train_split: str = setting("train", "split of a hub data set")
    dataset_columns: dict | None = setting(
        None,
        "which column holds which field, where the data has no known format: "
        "{question: problem, steps: solution, answer: final}",
    )
    dataset_chain: str | None = setting(
        None, "what the steps are made of: equations or sentences; absent: what the format prefers"
    )
    dataset_streaming: bool = setting(
        False, "read a hub data set while downloading it, and keep the problems on disk however few they are"
    )
    dataset_cache_dir: str | None = setting(
        None, "where large sets are kept tokenised; absent: $LATENTPLAN_CACHE or ~/.cache/latentplan"
    )
    dataset_size: int | None = setting(None, "problems of minigsm to generate, or the first N of other data")
    dataset_seed: int = setting(0, "seed of minigsm's generator")
    exclude_benchmarks: list[str] = setting(
        [], "evaluation data (as dataset_name, or minigsm:PRESET) whose questions are removed from training"
    )
    held_out_benchmarks: list[str] = setting(
        [], "evaluation data: training refuses to start if one of its questions is in the training data"
    )
    max_question_tokens: int | None = setting(None, "drop problems with longer questions")
    max_text_tokens: int | None = setting(None, "drop problems whose steps and answer are longer")


@dataclass(frozen=True)
class ReadProblems:
    """All problems that were read, and where the one at an index came from."""

    problems: Sequence[Problem]
    place_of: Callable[[int], str]


def read_all(data: DataArguments) -> ReadProblems:
    """Returns the problems of every data set of a run, in order.

    Raises:
        DataError: data cannot be read, with file, line and reason.
        ValueError: a preset does not exist.
    """
    scans = [_scan(name, data) for name in data.dataset_name]
    cache, key = Cache(cache_root(data.dataset_cache_dir)), _key(data, scans)
    stored = cache.find(f"problems-{key}") if key else None
    if stored is not None:
        return _from_store(stored)
    found = _found(scans)
    opening = [] if data.dataset_streaming else list(islice(found, IN_MEMORY + 1))
    if not data.dataset_streaming and len(opening) <= IN_MEMORY:
        return ReadProblems(
            [each.problem for each in opening],
            lambda index: f"{scans[opening[index].source].source}:{opening[index].line}",
        )
    with counting("reading") as advance:

        def write(folder: Path) -> dict:
            return write_problems(folder, chain(opening, found), [scan.source for scan in scans], advance)

        if key:
            return _from_store(cache.make(f"problems-{key}", write))
        request = f"problems-{_digest(_request(data))}"
        return _from_store(
            cache.make_named(request, write, lambda details: f"{request}-{details['fingerprint'][:32]}")
        )


def minigsm_preset(data: DataArguments) -> MinigsmConfig:
    """Returns the settings of minigsm that a run trains on. Raises ValueError if there is no such preset."""
    preset = data.dataset_config or "clock"
    if preset not in PRESETS:
        raise ValueError(f"dataset_config must be a minigsm preset, one of {sorted(PRESETS)}")
    return PRESETS[preset]


@contextmanager
def counting(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows how many problems are done, on a terminal; the function that it gives counts them."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task, waiting = progress.add_task(f"{description} problems", total=total), 0

        def advance(count: int) -> None:
            nonlocal waiting
            waiting += count
            if waiting >= _SHOWN_EVERY:
                progress.advance(task, waiting)
                waiting = 0

        yield advance


def _from_store(folder: Path) -> ReadProblems:
    store = ProblemStore(folder)
    return ReadProblems(store, store.place)


def _found(scans: Sequence[Scan]) -> Iterator[Found]:
    for source, scan in enumerate(scans):
        for line, outcome in scan.outcomes:
            yield Found(strict(outcome), source, line)


def _scan(name: str, data: DataArguments) -> Scan:
    if name == MINIGSM:
        return _scan_minigsm(data)
    argument = parse_benchmark_argument(name)
    if argument.hub and argument.config is None and MINIGSM not in data.dataset_name:
        argument = replace(argument, config=data.dataset_config)
    return argument.scan(
        Reading(
            split=data.dataset_train_split,
            chain=data.dataset_chain,
            columns=data.dataset_columns,
            streaming=data.dataset_streaming,
            limit=data.dataset_size,
        )
    )


def _scan_minigsm(data: DataArguments) -> Scan:
    problems = generate(
        minigsm_preset(data), split="train", count=data.dataset_size or 50_000, seed=data.dataset_seed
    )
    return Scan(MINIGSM, "latentplan", enumerate(problems, start=1))


def _key(data: DataArguments, scans: Sequence[Scan]) -> str | None:
    """Identifies what is read by its content; None where only reading tells, as for minigsm."""
    contents = []
    for name, scan in zip(data.dataset_name, scans, strict=True):
        file = None if name == MINIGSM else parse_benchmark_argument(name).file
        content = scan.fingerprint if file is None else _file_digest(file)
        if content is None:
            return None
        contents.append(content)
    return _digest([_request(data), contents])


def _request(data: DataArguments) -> list[object]:
    """Returns all settings but the data that decide which problems are read."""
    return [
        latentplan.__version__,
        data.dataset_name,
        data.dataset_config,
        data.dataset_train_split,
        data.dataset_columns,
        data.dataset_chain,
        data.dataset_size,
        data.dataset_seed,
    ]


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def load_training_problems(
    data: DataArguments, held_out: Mapping[str, Sequence[Problem]] | None = None
) -> tuple[Sequence[Problem], int]:
    """Returns the training problems, and how many were removed because an evaluation set asks them too.

    `held_out` is checked like the sets that `held_out_benchmarks` names: a run's own validation problems.

    Raises:
        ContaminationError: a problem that is left is in a held-out set.
        DataError: a file cannot be read, with file, line and reason.
        ValueError: a data set or preset does not exist, or nothing is left.
    """
    read = read_all(data)
    indices = np.arange(len(read.problems))
    if data.exclude_benchmarks:
        excluded = [question_keys(_evaluation_problems(name, data)) for name in data.exclude_benchmarks]
        indices = np.flatnonzero(~np.isin(question_keys(read.problems), np.concatenate(excluded)))
    if not len(indices):
        raise ValueError(f"there is no training problem in {', '.join(data.dataset_name)}")
    problems = _select(read.problems, indices)
    others = {name: _evaluation_problems(name, data) for name in data.held_out_benchmarks}
    refuse_overlap(problems, {**others, **(held_out or {})}, lambda index: read.place_of(int(indices[index])))
    return problems, len(read.problems) - len(indices)


def common_modulus(problems: Sequence[Problem]) -> int | None:
    """Returns the modulus that all problems have; None where they differ, or have none."""
    store = problems.items if isinstance(problems, SelectedProblems) else problems
    if isinstance(store, ProblemStore) and len(store.moduli) == 1:
        return next(iter(store.moduli))
    moduli = {problem.modulus for problem in problems}
    return moduli.pop() if len(moduli) == 1 else None


def _evaluation_problems(name: str, data: DataArguments) -> list[Problem]:
    """Returns an evaluation set, by its own format where its columns tell one, else by the run's
    column map.
    """
    try:
        return evaluation_set(name)[1]()
    except UnknownFormatError:
        if not data.dataset_columns:
            raise
        return evaluation_set(name, columns=data.dataset_columns)[1]()


def _select(problems: Sequence[Problem], indices: np.ndarray) -> Sequence[Problem]:
    if len(indices) == len(problems):
        return problems
    if isinstance(problems, ProblemStore):
        return SelectedProblems(problems, indices)
    return [problems[index] for index in indices.tolist()]
