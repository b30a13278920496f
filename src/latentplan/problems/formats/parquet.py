"""Parquet files row by row, through pyarrow where it is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentplan.problems.problem import DataError

PARQUET_MAGIC = b"PAR1"
_ROWS_AT_A_TIME = 1024


def parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | DataError]]:
    """Each row with its number, from 1; a part that cannot be read ends the file with a `DataError`."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        yield 1, DataError("reading Parquet needs pyarrow: pip install -c constraints.txt -e '.[datasets]'")
        return
    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (ArrowException, OSError) as error:
        yield number + 1, DataError(f"not valid Parquet: {error} (is the file truncated?)")
