"""The user's own data: latentplan's own format, and rows whose columns have other names.

The own format is one `Problem.to_json` a line: question, steps, answer; perhaps plans, modulus, answer_kind.
A CSV file has the same columns, with lists as JSON or as pandas writes them. Without steps it is data for RL
and evaluation.
Other names are told by a map from `question`, `steps` and `answer` to the columns:

    mapped_reader({"question": "problem", "steps": "solution", "answer": "final"})

A field that the map leaves out keeps its own name; `steps` may be absent altogether. The chain is a list of
texts, or one text whose steps are its `<<3+4=7>>` annotations or, where it has none, its lines. As in GSM8K,
what stands behind `####` is the answer and no step, so that one column may hold both.
"""

from __future__ import annotations

import json
import re
from ast import literal_eval
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from latentplan.problems.answers import answer_kinds, last_boxed
from latentplan.problems.formats.columns import (
    equation_chain,
    number_column,
    refuse_not_finite,
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
_MAX_LIST_LENGTH = 100_000
_SEPARATED_BY_COMMAS = re.compile(r"""['"],\s*['"]""")
_BETWEEN_TEXTS = re.compile(r"""(['"])\s+(?=['"])""")
_GROUPED_NUMBER = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")

ColumnMap = Mapping[str, str]
"""From fields of a `Problem` to columns of the data."""


def own_problem(row: Row) -> Problem:
    """A row of latentplan's own format, text kept to the letter. Raises DataError on a broken row."""
    text_column(row, "question")
    answer = row.get("answer")
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    plans, modulus = _plans(row.get("plans")), _modulus(row.get("modulus"))
    problem = Problem(
        question=row["question"],
        steps=_own_steps(row),
        answer=number_column(row, "answer") if is_number else _own_text(row, "answer"),
        plans=plans,
        modulus=modulus,
        answer_kind=row.get("answer_kind") or None,
    )
    _check_answer_kind(problem)
    return problem


def _own_text(row: Row, column: str) -> str:
    refuse_not_finite(text_column(row, column), column)
    return str(row[column])


def _own_steps(row: Row) -> Chain:
    """The steps: a list of texts, or one text, as a CSV file has it; none where there is no such column."""
    value = _unpacked(row.get("steps"))
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return _chain(value, None)
    texts_column({"steps": value}, "steps")  # which strips; here texts are kept to the letter
    return tuple(value)  # type: ignore[arg-type]


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
    problem = Problem(
        question=question,
        steps=_rationale(row, steps, chain) if steps == answer else _steps(row, steps, chain),
        answer=_answer(row, answer),
        plans=_plans(plans),
        modulus=_modulus(modulus),
        answer_kind=answer_kind or None,
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
    value = _unpacked(row[column])
    if value is None or value == "":
        return ()
    if not isinstance(value, str):
        listed = texts_column({column: value}, column)
        return listed if chain is None else _chain("\n".join(listed), chain)
    text = text_column(row, column).rsplit(_MARKER, 1)[0]
    return _chain(text, chain)


def _chain(text: str, chain: str | None) -> Chain:
    equations = () if chain == "sentences" else equation_chain(text)
    return equations if equations or chain == "equations" else sentence_chain(text)


def _unpacked(value: object) -> object:
    """Returns the list that a text stands for: JSON, or what pandas writes of lists and arrays into a CSV."""
    if not isinstance(value, str) or not (value.startswith("[") and value.endswith("]")):
        return value
    if len(value) > _MAX_LIST_LENGTH:
        return value
    for read in (json.loads, _array_as_numpy_writes_it, literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            found = read(value)
            if isinstance(found, list):
                return found
    return value


def _array_as_numpy_writes_it(text: str) -> object:
    """Reads `['a' 'b']` with commas between, which Python would join to one text."""
    if _SEPARATED_BY_COMMAS.search(text):
        raise ValueError("a list of Python's")
    return literal_eval(_BETWEEN_TEXTS.sub(r"\1, ", text))


def _plans(plans: object) -> tuple[Chain, ...] | None:
    """Returns plans, where there are any. Raises DataError where they are no list of chains."""
    plans = _unpacked(plans)
    if plans is None or plans == "":
        return None
    if not isinstance(plans, list):
        raise DataError(f"column 'plans' must be a list of chains, not {type(plans).__name__}")
    return tuple(texts_column({f"plans[{at}]": plan}, f"plans[{at}]") for at, plan in enumerate(plans))


def _modulus(modulus: object) -> int | None:
    """Returns the modulus, where there is one. Raises DataError where it is no integer of 2 or more."""
    if modulus is None or modulus == "":
        return None
    if isinstance(modulus, str) and modulus.strip().isdecimal() and len(modulus) < 10:
        modulus = int(modulus)
    if not isinstance(modulus, int) or isinstance(modulus, bool) or modulus < 2:
        raise DataError(f"column 'modulus' must be an integer of 2 or more, not {modulus!r}")
    return modulus


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


OWN = replace(
    Format.told_by(
        "latentplan",
        "question steps answer|question answer",
        equations=own_problem,
        sentences=own_problem,
    ),
    general=True,
)
"""latentplan's own format."""
