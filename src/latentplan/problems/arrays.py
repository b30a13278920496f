"""Columns of numbers in flat files: appended to without holding them, read memory-mapped."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

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
    """The numbers of a file, `[numbers]`, memory-mapped; an empty file has none."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
