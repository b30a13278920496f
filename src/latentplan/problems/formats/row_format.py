"""`Format`: how the rows of a format are told by their columns, and how each of their chains is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
        general: whether rows of other formats can be read as it, too, with a loss.
    """

    name: str
    signatures: tuple[frozenset[str], ...]
    chains: Mapping[str, RowReader]
    general: bool = False

    @classmethod
    def told_by(cls, name: str, signatures: str, /, **chains: RowReader) -> Format:
        """Makes a format whose signatures are written as text: `"input target|question final_ans"`."""
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


def format_of_sample(rows: Sequence[Row], formats: Iterable[Format]) -> Format:
    """Returns the format that most rows have: that with the largest signature among a row's columns.

    Where several fit, the format that can read most of these rows; where several can, one that another
    cannot do without (see `Format.general`) comes last.

    Raises:
        UnknownFormatError: the columns tell no format, or two equally well.
    """
    formats = list(formats)
    best_of_rows = [_best_fits(row, formats) for row in rows]
    votes = Counter(each.name for best in best_of_rows for each in best)
    most = max(votes.values(), default=0)
    best = [each for each in formats if most and votes[each.name] == most]
    if len(best) > 1:
        read = {each.name: sum(_can_read(each, row) for row in rows) for each in best}
        able = [each for each in best if 2 * read[each.name] > len(rows)] or best
        best = [each for each in able if not each.general] or able
    if len(best) == 1:
        return best[0]
    columns = ", ".join(map(str, rows[0])) or "(none)"
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


def _best_fits(row: Row, formats: Sequence[Format]) -> list[Format]:
    fits = [each.fit(row) for each in formats]
    return [each for each, fit in zip(formats, fits, strict=True) if fit and fit == max(fits)]


def _can_read(format: Format, row: Row) -> bool:
    try:
        format.reader()(row)
    except DataError:
        return False
    return True
