"""Problems on disk, indexed like a list: sets that are larger than memory.

A store is a folder: `problems.jsonl`, one `canonical_line` a problem; where each line starts; the 64-bit key
of each question; and where each problem came from. The numbers lie in flat files, which are appended to
without being held in memory and read memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from latentplan.problems.disk_cache import manifest_of
from latentplan.problems.fingerprint import canonical_line
from latentplan.problems.problem import Problem

_BUFFERED = 1 << 13
_CODES = {
    np.dtype(np.int64): "q",
    np.dtype(np.uint64): "Q",
    np.dtype(np.uint32): "I",
    np.dtype(np.int32): "i",
}


class ColumnWriter:
    """Appends numbers to a file, a buffer at a time. Use it as a context manager.

    Args:
        path: the file.
        dtype: of the numbers; one that does not fit raises OverflowError.
    """

    def __init__(self, path: Path, dtype: type[np.generic]):
        self._file = path.open("wb")
        self._buffer = array(_CODES[np.dtype(dtype)])

    def append(self, *values: int) -> None:
        """Adds numbers."""
        self.extend(values)

    def extend(self, values: Iterable[int]) -> None:
        """Adds numbers."""
        self._buffer.extend(values)
        if len(self._buffer) >= _BUFFERED:
            self._flush()

    def _flush(self) -> None:
        self._buffer.tofile(self._file)
        del self._buffer[:]

    def __enter__(self) -> ColumnWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._file.close()


def read_column(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """Returns the numbers of a file, `[numbers]`, memory-mapped; an empty file has none."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


Item = TypeVar("Item")
_LINES = "problems.jsonl"


class Found(NamedTuple):
    """A problem, and where it was found: the number of its source, and the line or row there."""

    problem: Problem
    source: int
    line: int


class ListLike(Sequence[Item]):
    """What `at` gives, indexed like a list; a slice of it is a list."""

    @abstractmethod
    def at(self, index: int) -> Item:
        """Returns the item at an index, from 0 to the length."""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self.at(place) for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there is no item {index} among {len(self)}")
        return self.at(place)


class ProblemStore(ListLike[Problem]):
    """The problems that `write_problems` wrote into a folder.

    Attributes:
        sources: the name of each source.
        fingerprint: of all problems, as `fingerprint.fingerprint` gives it.
        moduli: every modulus that some problem has, None among them.
        question_keys: uint64 `[problems]`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        manifest = manifest_of(folder)
        self.sources: list[str] = manifest["sources"]
        self.fingerprint: str = manifest["fingerprint"]
        self.moduli: set[int | None] = set(manifest["moduli"])
        self.question_keys = read_column(folder / "keys.u64", np.uint64)
        self._lines = read_column(folder / _LINES, np.uint8)
        self._starts = read_column(folder / "starts.i64", np.int64)
        self._places = read_column(folder / "places.i64", np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.question_keys)

    def at(self, index: int) -> Problem:
        """Returns the problem at an index."""
        return Problem.from_json(json.loads(self.canonical_line(index)))

    def canonical_line(self, index: int) -> bytes:
        """Returns the line of a problem, without its line break."""
        return self._lines[self._starts[index] : self._starts[index + 1] - 1].tobytes()

    def canonical_lines(self) -> Iterator[bytes]:
        """Returns all lines in order."""
        return map(self.canonical_line, range(len(self)))

    def place(self, index: int) -> str:
        """Returns where a problem came from, `train.jsonl:17`."""
        source, line = self._places[index].tolist()
        return f"{self.sources[source]}:{line}"

    def __reduce__(self) -> tuple[Any, ...]:
        return ProblemStore, (self.folder,)


class Selected(ListLike[Item]):
    """Some items of another sequence, in the order of `places`, int64 `[items]`."""

    def __init__(self, items: Sequence[Item], places: np.ndarray):
        self.items, self.places = items, places

    def __len__(self) -> int:
        return len(self.places)

    def at(self, index: int) -> Item:
        """Returns the item at an index."""
        return self.items[int(self.places[index])]


class SelectedProblems(Selected[Problem]):
    """Some problems of a store."""

    items: ProblemStore

    @property
    def question_keys(self) -> np.ndarray:
        """Those of the problems selected, uint64 `[problems]`."""
        return self.items.question_keys[self.places]

    def canonical_lines(self) -> Iterator[bytes]:
        """Returns the lines of the problems selected."""
        return (self.items.canonical_line(int(place)) for place in self.places)


def write_problems(
    folder: Path,
    found: Iterable[Found],
    sources: Sequence[str],
    on_progress: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Writes problems one by one, for a cache; returns what `ProblemStore` wants in the manifest."""
    digest, moduli, position = hashlib.sha256(), set(), 0
    with ExitStack() as files:
        lines = files.enter_context((folder / _LINES).open("wb"))
        starts = files.enter_context(ColumnWriter(folder / "starts.i64", np.int64))
        keys = files.enter_context(ColumnWriter(folder / "keys.u64", np.uint64))
        places = files.enter_context(ColumnWriter(folder / "places.i64", np.int64))
        starts.append(0)
        for problem, source, line in found:
            text = canonical_line(problem)
            digest.update(text)
            moduli.add(problem.modulus)
            position += lines.write(text + b"\n")
            starts.append(position)
            keys.append(int(problem.key, 16))
            places.append(source, line)
            on_progress(1)
    return {"sources": list(sources), "fingerprint": digest.hexdigest(), "moduli": list(moduli)}
