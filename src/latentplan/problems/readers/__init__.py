"""The readers under the module name that they had before `problems.reading` and `problems.formats`."""

from latentplan.problems.formats.own_data import ColumnMap, mapped_reader
from latentplan.problems.formats.row_format import Format, RowReader
from latentplan.problems.reading import (
    FORMATS,
    Outcome,
    format_named,
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
    "format_of_rows",
    "mapped_reader",
    "outcomes_of_rows",
    "read_problems",
    "scan_problems",
    "strict",
]
