"""The table of formats: how to recognise one by its columns, and how each of its chains is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from latentplan.problems.benchmarks.gsm8k import (
    gsm8k_aug_problem,
    gsm8k_problem,
    gsm_hard_problem,
    sentence_chain,
)
from latentplan.problems.benchmarks.sentences import prosqa_problem, strategyqa_problem
from latentplan.problems.benchmarks.word_problems import (
    mawps_asdiv_problem,
    multiarith_problem,
    svamp_problem,
)
from latentplan.problems.formats.own import own_problem
from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import DataError, Problem, UnknownFormatError

RowReader = Callable[[Row], Problem]
"""Turns one row into a problem, or raises a DataError that holds the reason only."""


@dataclass(frozen=True, slots=True)
class Format:
    """One published format.

    Attributes:
        name: what users call it.
        signatures: sets of columns; a row that has all of one set is taken for this format.
        chains: what its chain can be made of, by name; the first is the default.
    """

    name: str
    signatures: tuple[frozenset[str], ...]
    chains: Mapping[str, RowReader]

    def reader(self, chain: str | None = None) -> RowReader:
        """The reader that gives this kind of chain. Raises DataError if the format has no such chain."""
        if chain is None:
            return next(iter(self.chains.values()))
        if chain not in self.chains:
            raise DataError(f"{self.name} has no chain of {chain}; choose from: {', '.join(self.chains)}")
        return self.chains[chain]


def _format(name: str, signatures: str, /, **chains: RowReader) -> Format:
    return Format(name, tuple(frozenset(columns.split()) for columns in signatures.split("|")), chains)


_TABLE = (
    _format(
        "strategyqa",
        "question answer facts decomposition",
        sentences=strategyqa_problem,
        decomposition=partial(strategyqa_problem, chain_column="decomposition"),
    ),
    _format("mawps-asdiv", "Question Numbers Equation Answer", equations=mawps_asdiv_problem),
    _format("svamp", "Body Question Equation Answer", equations=svamp_problem),
    _format("gsm-hard", "input code target", equations=gsm_hard_problem, sentences=gsm_hard_problem),
    _format(
        "multiarith",
        "input target|question final_ans",
        equations=multiarith_problem,
        sentences=multiarith_problem,
    ),
    _format("gsm8k-aug", "text", equations=gsm8k_aug_problem),
    _format("prosqa", "question steps answer idx_to_symbol", sentences=prosqa_problem),
    _format("latentplan", "question steps answer", equations=own_problem, sentences=own_problem),
    _format(
        "gsm8k",
        "question answer",
        equations=gsm8k_problem,
        sentences=partial(gsm8k_problem, chain_of_rationale=sentence_chain),
    ),
)
FORMATS: Mapping[str, Format] = {entry.name: entry for entry in _TABLE}
"""Every format by name, those with the more telling columns first."""


def format_named(name: str) -> Format:
    """The format of this name. Raises DataError if there is none."""
    if name not in FORMATS:
        raise DataError(f"there is no format {name!r}; choose from: {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of_row(row: Row) -> Format:
    """The format that a row's columns tell. Raises UnknownFormatError if they tell none."""
    columns = row.keys()
    for entry in FORMATS.values():
        if any(signature <= columns for signature in entry.signatures):
            return entry
    raise UnknownFormatError(
        f"the columns {', '.join(map(str, columns)) or '(none)'} tell no known format; expected question, "
        f"steps, answer, or the columns of one of: {', '.join(FORMATS)}; or say which column is which with "
        "dataset_columns, such as {question: problem, steps: solution, answer: final}"
    )
