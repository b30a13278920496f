"""`Format`: how the rows of a format are told by their columns, and how each of their chains is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import DataError, Problem, UnknownFormatError

RowReader = Callable[[Row], Problem]
"""Turns one row into a problem, or raises a DataError that holds the reason only."""


@dataclass(frozen=True, slots=True)
class Format:
    """One published format.

    Attributes:
        name: what users call it.
        signatures: sets of columns; a row that has all of one set may be of this format.
        chains: what its chain can be made of, by name; the first is the default.
    """

    name: str
    signatures: tuple[frozenset[str], ...]
    chains: Mapping[str, RowReader]

    @classmethod
    def told_by(cls, name: str, signatures: str, /, **chains: RowReader) -> Format:
        """A format whose signatures are written as text: `"input target|question final_ans"`."""
        return cls(name, tuple(frozenset(columns.split()) for columns in signatures.split("|")), chains)

    def reader(self, chain: str | None = None) -> RowReader:
        """The reader that gives this kind of chain. Raises DataError if the format has no such chain."""
        if chain is None:
            return next(iter(self.chains.values()))
        if chain not in self.chains:
            raise DataError(f"{self.name} has no chain of {chain}; choose from: {', '.join(self.chains)}")
        return self.chains[chain]

    def fit(self, row: Row) -> int:
        """The size of the largest signature whose columns the row has; 0 if it has those of none."""
        return max((len(columns) for columns in self.signatures if columns <= row.keys()), default=0)


def format_of_row(row: Row, formats: Iterable[Format]) -> Format:
    """The format with the largest signature among the row's columns.

    Raises:
        UnknownFormatError: the columns tell no format, or two equally well.
    """
    formats = list(formats)
    fits = [each.fit(row) for each in formats]
    best = [each for each, fit in zip(formats, fits, strict=True) if fit and fit == max(fits)]
    if len(best) == 1:
        return best[0]
    columns = ", ".join(map(str, row)) or "(none)"
    if best:
        names = [each.name for each in best]
        raise UnknownFormatError(
            f"the columns {columns} may be of {' or of '.join(names)}; say which with NAME=FILE, such as "
            f"{names[0]}=FILE"
        )
    raise UnknownFormatError(
        f"the columns {columns} tell no known format; expected question, steps, answer, or the columns of "
        f"one of: {', '.join(each.name for each in formats)}; or say which column is which with "
        "dataset_columns, such as {question: problem, steps: solution, answer: final}"
    )
