"""Token ids on disk, indexed like a list: tokenised once, and memory-mapped.

A store is a folder of flat files: the ids of all texts one after another (uint32), the start of each text,
and the index of the first text of each problem (its question; steps and answer follow).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from latentplan.encoding.processor import EncodedProblem, ProblemProcessor
from latentplan.encoding.unreadable import UnreadableTextError
from latentplan.problems.disk_cache import Cache, cache_root
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.problem_store import (
    ColumnWriter,
    ListLike,
    ProblemStore,
    Selected,
    SelectedProblems,
    read_column,
)
from latentplan.problems.training_set import DataArguments, counting, read_all

_AT_A_TIME = 1000
_PROBE = Problem("How many pens has Ann?", ("<<3+4=7>>", "She has 7."), "7")


class EncodedStore(ListLike[EncodedProblem]):
    """The token ids that `write_encoded` wrote into a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._ids = read_column(folder / "ids.u32", np.uint32)
        self._starts = read_column(folder / "starts.i64", np.int64)
        self._first = read_column(folder / "first.i64", np.int64)

    def __len__(self) -> int:
        return len(self._first) - 1

    def at(self, index: int) -> EncodedProblem:
        """Returns the token ids of the problem at an index."""
        first, end = self._first[index], self._first[index + 1]
        starts = self._starts[first : end + 1].tolist()
        ids = self._ids[starts[0] : starts[-1]].tolist()
        texts = [ids[a - starts[0] : b - starts[0]] for a, b in pairwise(starts)]
        return EncodedProblem(question=texts[0], steps=texts[1:-1], answer=texts[-1])

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts the tokens of each question, and of its steps and answer; int64 `[problems]` each."""
        starts, first = self._starts, self._first
        text_start = starts[first[:-1] + 1]
        return text_start - starts[first[:-1]], starts[first[1:]] - text_start

    def __reduce__(self) -> tuple[Any, ...]:
        return EncodedStore, (self.folder,)


def write_encoded(
    folder: Path,
    problems: Sequence[Problem],
    processor: ProblemProcessor,
    on_progress: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Tokenises problems, a thousand at a time, into a cache folder; returns its part of the manifest."""
    texts = tokens = 0
    with (
        ColumnWriter(folder / "ids.u32", np.uint32) as ids,
        ColumnWriter(folder / "starts.i64", np.int64) as starts,
        ColumnWriter(folder / "first.i64", np.int64) as first,
    ):
        starts.append(0)
        first.append(0)
        for begin in range(0, len(problems), _AT_A_TIME):
            chunk = problems[begin : begin + _AT_A_TIME]
            for encoded in processor.encode_all(chunk):
                parts = [encoded.question, *encoded.steps, encoded.answer]
                ends = list(accumulate(map(len, parts), initial=tokens))[1:]
                for part in parts:
                    ids.extend(part)
                starts.extend(ends)
                tokens, texts = ends[-1], texts + len(parts)
                first.append(texts)
            on_progress(len(chunk))
    return {"num_problems": len(problems), "num_tokens": tokens}


def processor_fingerprint(processor: ProblemProcessor) -> str:
    """Computes the SHA-256 of everything that decides the token ids of a problem: tokenizer and layout.

    The layout enters through the ids of an example problem, so that no setting can be forgotten. The
    control tokens
    enter, too: a cache that was made under another rule about them is not used.
    """
    digest = hashlib.sha256(_tokenizer_content(processor.tokenizer))
    probe = processor.unchecked(_PROBE)
    digest.update(json.dumps([probe.question, probe.steps, probe.answer]).encode())
    digest.update(json.dumps(sorted(processor.control_tokens.names.items())).encode())
    return digest.hexdigest()


def _tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> bytes:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = json.loads(backend.to_str())
        for state in ("truncation", "padding"):  # state of the last call, and no property of the tokenizer
            content.pop(state, None)
        return json.dumps(content, sort_keys=True).encode()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = [file for file in sorted(Path(folder).rglob("*")) if file.is_file()]
        return b"".join(file.name.encode() + file.read_bytes() for file in files)


def encode_problems(
    problems: Sequence[Problem],
    processor: ProblemProcessor,
    data: DataArguments,
    sources: Sequence[DataArguments] | None = None,
) -> tuple[Sequence[EncodedProblem], Sequence[Problem]]:
    """Encodes the problems that are within the length limits; returns their token ids, and these problems.

    Args:
        problems: of a run.
        processor: of its model.
        data: its settings.
        sources: from which the problems were read; `data` where it is None.

    Raises:
        DataError: the model cannot read a problem; with file and line.
        ValueError: no problem is short enough.
    """
    try:
        encoded, kept = _encode_problems(problems, processor, data)
    except UnreadableTextError as error:
        raise DataError(str(error), file=_location(error.problem, sources or [data])) from error
    _check_positions(encoded, kept, processor, sources or [data])
    return encoded, kept


def _check_positions(
    encoded: Sequence[EncodedProblem],
    kept: Sequence[Problem],
    processor: ProblemProcessor,
    sources: Sequence[DataArguments],
) -> None:
    """Raises DataError where a row of some curriculum stage needs more positions than the model has."""
    if isinstance(encoded, Selected) and isinstance(encoded.items, EncodedStore):
        question, text = (lengths[encoded.places] for lengths in encoded.items.lengths())
    else:
        question, text = _lengths(encoded)
    beyond = np.flatnonzero(question + text + processor.reserved > (processor.max_positions or np.inf))
    if len(beyond):
        first = int(beyond[0])
        raise DataError(
            f"{len(beyond)} of {len(kept)} problems need more than the model's {processor.max_positions} "
            f"positions: the first has {question[first]} tokens in its question and {text[first]} in its "
            f"steps and answer, and latents take {processor.reserved}; leave such problems out with "
            "max_question_tokens and max_text_tokens",
            file=_location(kept[first], sources),
        )


def _lengths(encoded: Sequence[EncodedProblem]) -> tuple[np.ndarray, np.ndarray]:
    """Counts the tokens of each question, and of each problem's steps and answer."""
    question = np.array([len(each.question) for each in encoded])
    return question, np.array([sum(map(len, each.steps)) + len(each.answer) for each in encoded])


def _location(problem: Problem | None, sources: Sequence[DataArguments]) -> str | None:
    """Finds file and line of a problem in one of several sources; None where it is in none."""
    locations = (_location_of(problem, each) for each in sources)
    return next((each for each in locations if each is not None), None)


def _location_of(problem: Problem | None, data: DataArguments) -> str | None:
    """Finds file and line of a problem, for an error, by reading the data again; None if not found."""
    read = read_all(data)
    return next((read.place_of(at) for at, other in enumerate(read.problems) if other == problem), None)


def _encode_problems(
    problems: Sequence[Problem], processor: ProblemProcessor, data: DataArguments
) -> tuple[Sequence[EncodedProblem], Sequence[Problem]]:
    encoded: Sequence[EncodedProblem]
    kept: Sequence[Problem]
    if isinstance(problems, ProblemStore | SelectedProblems):
        encoded, kept = _encode_stored(problems, processor, data)
    else:
        ids = processor.encode_all(problems)
        indices = np.flatnonzero(_short(*_lengths(ids), data)).tolist()
        encoded, kept = [ids[index] for index in indices], [problems[index] for index in indices]
    if not kept:
        raise ValueError(
            f"none of {len(problems)} problems is short enough: raise max_question_tokens or max_text_tokens"
        )
    return encoded, kept


def _encode_stored(
    problems: ProblemStore | SelectedProblems, processor: ProblemProcessor, data: DataArguments
) -> tuple[Selected[EncodedProblem], SelectedProblems]:
    """Encodes all problems of the store, so that the cache does not depend on what a run leaves out."""
    store, indices = (
        (problems.items, problems.places)
        if isinstance(problems, SelectedProblems)
        else (problems, np.arange(len(problems)))
    )
    key = hashlib.sha256(f"{store.fingerprint} {processor_fingerprint(processor)}".encode()).hexdigest()[:32]
    with counting("tokenising", len(store)) as advance:
        folder = Cache(cache_root(data.dataset_cache_dir)).make(
            f"encoded-{key}", lambda folder: write_encoded(folder, store, processor, advance)
        )
    encoded = EncodedStore(folder)
    indices = indices[_short(*encoded.lengths(), data)[indices]]
    return Selected(encoded, indices), SelectedProblems(store, indices)


def _short(question: np.ndarray, text: np.ndarray, data: DataArguments) -> np.ndarray:
    """Says which problems are within the limits, by the tokens of their question and of their text."""
    short = np.ones(len(question), dtype=bool)
    if data.max_question_tokens is not None:
        short &= question <= data.max_question_tokens
    if data.max_text_tokens is not None:
        short &= text <= data.max_text_tokens
    return short
