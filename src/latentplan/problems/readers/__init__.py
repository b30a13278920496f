"""Readers of the published data formats, and of latentplan's own.

`read_problems(path)` reads a file or stops at its first broken row; `scan_problems(path)` goes on and yields
the errors too. A file's layout (JSON lines, JSON list, CSV, Parquet, text) is told by its contents, its
format by its columns, or by a map of columns.
"""

from latentplan.problems.formats.own_data import ColumnMap, mapped_reader
from latentplan.problems.formats.row_format import FORMATS, Format, RowReader, format_named, format_of_row
from latentplan.problems.reading import (
    Outcome,
    format_of_file,
    format_of_rows,
    outcomes_of_rows,
    read_problems,
    scan_problems,
    strict,
)

__all__ = [
    "FORMATS",
    "ColumnMap",
    "Format",
    "Outcome",
    "RowReader",
    "format_named",
    "format_of_file",
    "format_of_row",
    "format_of_rows",
    "mapped_reader",
    "outcomes_of_rows",
    "read_problems",
    "scan_problems",
    "strict",
]
