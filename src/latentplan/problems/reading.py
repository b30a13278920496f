"""From a file to problems: tolerant, one outcome a row, or strict, all problems or the first error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from latentplan.problems.benchmarks.benchmark import benchmarks
from latentplan.problems.formats.own_data import OWN, ColumnMap, mapped_reader
from latentplan.problems.formats.row_format import Format, RowReader, format_of_sample
from latentplan.problems.formats.rows import NumberedRow, Row, rows_of_file
from latentplan.problems.problem import DataError, Problem, UnknownFormatError

FORMATS: Mapping[str, Format] = {OWN.name: OWN, **{name: each.format for name, each in benchmarks().items()}}
"""Every format by name."""
SAMPLE = 100
"""Rows by which the format of a file is told."""
Outcome = tuple[int, Problem | DataError]
"""The line where a row starts (from 1), and its problem or what is wrong with it."""


def read_problems(
    path: str | Path,
    format: str | Format | None = None,
    *,
    chain: str | None = None,
    columns: ColumnMap | None = None,
    limit: int | None = None,
) -> list[Problem]:
    """All problems of a file, or the first `limit`.

    Args:
        path: the file; its layout is told by its contents.
        format: its format, or the name of it, `"svamp"`; by default told by its first rows.
        chain: what the steps are made of, `"equations"` or `"sentences"`; by default what the format prefers.
        columns: in place of a format, which column holds which field, see `mapped_reader`.
        limit: how many problems to read at most.

    Raises:
        DataError: at the first row that cannot be read, with file, line and reason.
    """
    outcomes = scan_problems(path, format, chain=chain, columns=columns)
    return [strict(outcome) for _, outcome in islice(outcomes, limit)]


def scan_problems(
    path: str | Path,
    format: str | Format | None = None,
    *,
    chain: str | None = None,
    columns: ColumnMap | None = None,
) -> Iterator[Outcome]:
    """Every row of a file in order, as a problem or as its error; the arguments are those of `read_problems`.

    Raises:
        DataError: at once, if there is no such file, format or chain, or if the columns tell no format.
    """
    path = Path(path)
    rows = rows_of_file(path)
    if columns:
        if format is not None:
            name = format if isinstance(format, str) else format.name
            raise DataError(f"dataset_columns and the format {name} were both given: leave one out")
        return outcomes_of_rows(rows, mapped_reader(columns, chain), source=str(path))
    if format is None:
        format = format_of_file(path)
    named = format_named(format) if isinstance(format, str) else format
    return outcomes_of_rows(rows, named.reader(chain), source=str(path))


def outcomes_of_rows(rows: Iterable[NumberedRow], read: RowReader, *, source: str) -> Iterator[Outcome]:
    """The problem or the located error of each numbered row; `source` is the file to name in errors."""
    line = 0
    for line, row in rows:
        yield line, _outcome(row, line, read, source)
    if line == 0:
        yield 1, DataError("the file holds no rows", file=source, line=1)


def format_named(name: str) -> Format:
    """The format of this name. Raises DataError if there is none."""
    if name not in FORMATS:
        raise DataError(f"there is no format {name!r}; choose from: {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of_file(path: Path) -> Format:
    """Returns the format that the first readable rows tell. Raises DataError if they tell none."""
    return format_of_rows(rows_of_file(path), source=str(path))


def format_of_rows(rows: Iterable[NumberedRow], *, source: str) -> Format:
    """As `format_of_file`, of numbered rows; `source` is the file to name in errors."""
    readable = ((line, row) for line, row in rows if not isinstance(row, DataError))
    sample = list(islice(readable, SAMPLE))
    if not sample:
        return OWN  # no row can be read: any format reports that
    try:
        return format_of_sample([row for _, row in sample], FORMATS.values())
    except UnknownFormatError as error:
        raise UnknownFormatError(error.reason, file=source, line=sample[0][0]) from None


def strict(outcome: Problem | DataError) -> Problem:
    """The problem. Raises the error if it is one."""
    if isinstance(outcome, DataError):
        raise outcome
    return outcome


def _outcome(row: Row | DataError, line: int, read: RowReader, source: str) -> Problem | DataError:
    try:
        if isinstance(row, DataError):
            raise row
        return read(row)
    except DataError as error:
        return DataError(error.reason, file=source, line=line)
