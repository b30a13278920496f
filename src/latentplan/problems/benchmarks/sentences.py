"""Questions reasoned about in sentences: ProsQA and StrategyQA.

prosqa      {"question": ..., "steps": ["Ann is a wump.", "Every wump is a zorp."],
             "answer": "Ann is a zorp."}
strategyqa  {"question": ..., "answer": true, "facts": ["..."], "decomposition": ["Who is ...?"]}
"""

from __future__ import annotations

from functools import partial

from latentplan.problems.benchmarks.benchmark import Benchmark
from latentplan.problems.formats.columns import text_column, texts_column, yes_or_no_column
from latentplan.problems.formats.row_format import Format
from latentplan.problems.formats.rows import Row
from latentplan.problems.problem import Problem


def prosqa_problem(row: Row) -> Problem:
    """Reads a row of ProsQA; its graph is not read. Raises DataError on a broken row."""
    return Problem(text_column(row, "question"), texts_column(row, "steps"), text_column(row, "answer"))


def strategyqa_problem(row: Row, chain_column: str = "facts") -> Problem:
    """Reads a row of StrategyQA, answered yes or no; the chain is its facts or its decomposition into
    questions.

    Raises DataError on a broken row.
    """
    question, answer = text_column(row, "question"), yes_or_no_column(row, "answer")
    return Problem(question, texts_column(row, chain_column), answer)


PROSQA = Benchmark(
    Format.told_by("prosqa", "question steps answer idx_to_symbol", sentences=prosqa_problem),
    "which of two, by a path through a graph told in sentences (300 valid, 500 test)",
    "github.com/facebookresearch/coconut, folder data",
)
STRATEGYQA = Benchmark(
    Format.told_by(
        "strategyqa",
        "question answer facts decomposition",
        sentences=strategyqa_problem,
        decomposition=partial(strategyqa_problem, chain_column="decomposition"),
    ),
    "yes/no questions that need several facts (2061 train, 229 dev)",
    "the StrategyQA release at allenai.org/data/strategyqa",
)
