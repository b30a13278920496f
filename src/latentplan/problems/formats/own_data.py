"""The user's own data: latentplan's own format, and rows whose columns have other names.

The own format is one `Problem.to_json` a line: question, steps, answer; perhaps plans, modulus, answer_kind.
Other names are told by a map from `question`, `steps` and `answer` to the columns:

    mapped_reader({"question": "problem", "steps": "solution", "answer": "final"})

A field that the map leaves out keeps its own name; `steps` may be absent altogether. The chain is a list of
texts, or one text whose steps are its `<<3+4=7>>` annotations or, where it has none, its lines. As in GSM8K,
what stands behind `####` is the answer and no step, so that one column may hold both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from latentplan.problems.answers import answer_kinds, last_boxed
from latentplan.problems.formats.columns import (
    equation_chain,
    number_column,
    sentence_chain,
    text_column,
    texts_column,
    yes_or_no_column,
)
from latentplan.problems.formats.row_format import Format, RowReader
from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import Chain, DataError, Problem

FIELDS = ("question", "steps", "answer", "plans", "modulus", "answer_kind")
CHAINS = ("equations", "sentences")
_MARKER = "####"
_GROUPED_NUMBER = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")

ColumnMap = Mapping[str, str]
"""From fields of a `Problem` to columns of the data."""


def own_problem(row: Row) -> Problem:
    """A row of latentplan's own format, text kept to the letter. Raises DataError on a broken row."""
    text_column(row, "question")
    texts_column(row, "steps")
    _check_answer(row)
    _check_plans(row.get("plans"))
    _check_modulus(row.get("modulus"))
    problem = Problem.from_json(row)
    _check_answer_kind(problem)
    return problem


def mapped_reader(columns: ColumnMap, chain: str | None = None) -> RowReader:
    """The reader of rows with these columns; `chain` is `"equations"`, `"sentences"`, or what there is.

    Raises:
        DataError: the map names a field that there is not, or no column for one; or there is no such chain.
    """
    unknown = sorted(str(field) for field in columns if field not in FIELDS)
    if unknown:
        raise DataError(f"dataset_columns maps {', '.join(unknown)}; it may map {', '.join(FIELDS)}")
    for field, column in columns.items():
        if not isinstance(column, str) or not column:
            raise DataError(f"dataset_columns must give the name of a column for {field}, got {column!r}")
    if chain not in (None, *CHAINS):
        raise DataError(f"there is no chain of {chain}; choose from: {', '.join(CHAINS)}")
    return partial(mapped_problem, columns=dict(columns), chain=chain)


def mapped_problem(row: Row, columns: ColumnMap, chain: str | None = None) -> Problem:
    """The problem in a row, by a column map. Raises DataError on a broken row."""
    for field, column in columns.items():
        if column not in row:
            found = ", ".join(map(str, row)) or "none"
            raise DataError(
                f"column {column!r}, which dataset_columns maps {field} to, is missing (found: {found})"
            )
    question = text_column(row, columns.get("question", "question"))
    answer = columns.get("answer", "answer")
    steps = columns.get("steps", "steps" if "steps" in row else answer)
    plans, modulus, answer_kind = (
        row[columns[each]] if each in columns else None for each in ("plans", "modulus", "answer_kind")
    )
    _check_plans(plans)
    _check_modulus(modulus)
    problem = Problem(
        question=question,
        steps=_rationale(row, steps, chain) if steps == answer else _steps(row, steps, chain),
        answer=_answer(row, answer),
        plans=None if plans is None else tuple(map(tuple, plans)),
        modulus=modulus,
        answer_kind=answer_kind,
    )
    _check_answer_kind(problem)
    return problem


def _answer(row: Row, column: str) -> str:
    value = row.get(column)
    if isinstance(value, bool):
        return yes_or_no_column(row, column)
    if isinstance(value, int | float):
        return number_column(row, column)
    text = text_column(row, column)
    if _MARKER in text:
        text = text.rsplit(_MARKER, 1)[1].strip()
    elif "\\boxed" in text:
        text = last_boxed(text) or text
    if not text:
        raise DataError(f"column {column!r} has nothing behind {_MARKER!r} (is it truncated?)")
    return text.replace(",", "") if _GROUPED_NUMBER.fullmatch(text) else text


def _rationale(row: Row, column: str, chain: str | None) -> Chain:
    """The steps before the marker of a column that holds the answer too; none where it holds no marker."""
    text = row.get(column)
    return _steps(row, column, chain) if isinstance(text, str) and _MARKER in text else ()


def _steps(row: Row, column: str, chain: str | None) -> Chain:
    value = row[column]
    if value is None or value == "":
        return ()
    if not isinstance(value, str):
        listed = texts_column(row, column)
        return listed if chain is None else _chain("\n".join(listed), chain)
    text = text_column(row, column).rsplit(_MARKER, 1)[0]
    return _chain(text, chain)


def _chain(text: str, chain: str | None) -> Chain:
    equations = () if chain == "sentences" else equation_chain(text)
    return equations if equations or chain == "equations" else sentence_chain(text)


def _check_answer(row: Row) -> None:
    if not isinstance(row.get("answer"), int | float) or isinstance(row["answer"], bool):
        text_column(row, "answer")


def _check_plans(plans: object) -> None:
    """Raises DataError where plans are given that are no list of chains."""
    if plans is None:
        return
    if not isinstance(plans, list):
        raise DataError(f"column 'plans' must be a list of chains, not {type(plans).__name__}")
    for index, plan in enumerate(plans):
        texts_column({f"plans[{index}]": plan}, f"plans[{index}]")


def _check_modulus(modulus: object) -> None:
    """Raises DataError where a modulus is given that is no integer of 2 or more."""
    if modulus is not None and (not isinstance(modulus, int) or isinstance(modulus, bool) or modulus < 2):
        raise DataError(f"column 'modulus' must be an integer of 2 or more, not {modulus!r}")


def _check_answer_kind(problem: Problem) -> None:
    """Raises DataError where a row names no built-in kind of answer, or one that its answer is not of.

    A row is text of others, so that it may not name code, as a benchmark of the user's own may.
    """
    name = problem.answer_kind
    if name is None:
        return
    if not isinstance(name, str) or name not in answer_kinds():
        raise DataError(
            f"column 'answer_kind' must be one of {', '.join(answer_kinds())}, not {name!r}; a kind of your "
            "own goes with a benchmark of your own"
        )
    if not answer_kinds()[name].accepts(problem.answer):
        raise DataError(f"the answer {problem.answer!r} is not of the kind {name!r} (column 'answer_kind')")


OWN = Format.told_by("latentplan", "question steps answer", equations=own_problem, sentences=own_problem)
"""latentplan's own format."""
