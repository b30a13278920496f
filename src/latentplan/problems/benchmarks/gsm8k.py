"""GSM8K and its relatives: GSM8K-Aug (equations only) and GSM-Hard (large numbers).

gsm8k       {"question": ..., "answer": "16 - 3 = <<16-3=13>>13 eggs are left.\n#### 13"}
gsm8k-aug   question||<<16-3=13>> #### 13      or the columns question, steps, answer
gsm-hard    {"input": ..., "code": ..., "target": -9867630.0}
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from latentplan.problems.benchmarks.benchmark import TRAIN_AND_TEST, Benchmark
from latentplan.problems.formats.columns import (
    ANNOTATION,
    equation_chain,
    number_column,
    plain_number,
    sentence_chain,
    text_column,
    texts_column,
)
from latentplan.problems.formats.row_format import Format
from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import Chain, DataError, Problem

_MARKER = "####"


def gsm8k_problem(row: Row, chain_of_rationale: Callable[[str], Chain] = equation_chain) -> Problem:
    """Reads a row of GSM8K, whose answer is a rationale, then `#### 13`. Raises DataError on a
    broken row.
    """
    question = text_column(row, "question")
    rationale, answer = _split_once(text_column(row, "answer"), _MARKER)
    return Problem(question, chain_of_rationale(rationale), plain_number(answer, "answer"))


def gsm8k_aug_problem(row: Row) -> Problem:
    """Reads a row of GSM8K-Aug: a line of text, or the columns of the hub. Raises DataError on a broken
    row.
    """
    if "text" in row:
        return _gsm8k_aug_line(text_column(row, "text"))
    return Problem(
        text_column(row, "question"),
        texts_column(row, "steps"),
        plain_number(text_column(row, "answer"), "answer"),
    )


def gsm_hard_problem(row: Row) -> Problem:
    """Reads a row of GSM-Hard, which has a program but no chain: `steps` is empty. Raises DataError if
    broken.
    """
    return Problem(text_column(row, "input"), (), number_column(row, "target"))


def _gsm8k_aug_line(line: str) -> Problem:
    question, rest = _split_once(line, "||")
    chain, answer = _split_once(rest, _MARKER)
    if not question.strip():
        raise DataError("the question is empty")
    if ANNOTATION.sub("", chain).strip():
        raise DataError(f"expected only <<...>> between '||' and '{_MARKER}', found {chain.strip()!r:.60}")
    return Problem(question.strip(), equation_chain(chain), plain_number(answer, "answer"))


def _split_once(text: str, separator: str) -> tuple[str, str]:
    parts = text.split(separator)
    if len(parts) != 2:
        raise DataError(f"expected one {separator!r} in the row, found {len(parts) - 1} (is it truncated?)")
    return parts[0], parts[1]


GSM8K = Benchmark(
    Format.told_by(
        "gsm8k",
        "question answer",
        equations=gsm8k_problem,
        sentences=partial(gsm8k_problem, chain_of_rationale=sentence_chain),
    ),
    "grade-school mathematics with rationales (7473 train, 1319 test)",
    "github.com/openai/grade-school-math",
    hub="openai/gsm8k",
    config="main",
    splits=TRAIN_AND_TEST,
)
GSM8K_AUG = Benchmark(
    Format.told_by("gsm8k-aug", "text", equations=gsm8k_aug_problem),
    "GSM8K augmented to 385k problems, equations only",
    "the Implicit CoT release",
    hub="whynlp/gsm8k-aug",
    splits={"train": "train", "validation": "validation", "test": "test"},
)
GSM_HARD = Benchmark(
    Format.told_by("gsm-hard", "input code target", equations=gsm_hard_problem, sentences=gsm_hard_problem),
    "GSM8K's test set with large numbers (1319)",
    "the PAL release",
    hub="reasoning-machines/gsm-hard",
    splits={"test": "train"},  # the hub calls its only split 'train'
)
