"""What a data file holds, and what is wrong with it: the report behind `latentplan data check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain as concatenate
from pathlib import Path

from latentplan.problems.answers import numbers_match, parse_number
from latentplan.problems.benchmarks import benchmark_named
from latentplan.problems.equations import Equation, parse_equation
from latentplan.problems.problem import DataError, Problem, normalise_question
from latentplan.problems.readers import format_named, format_of_file, scan_problems


@dataclass(frozen=True, slots=True)
class Doubt:
    """A step that can be read, but should be looked at.

    Attributes:
        line: where its problem starts in the file.
        step: the step.
        reason: `"false equation"`, `"unreadable equation"`, or `"last result is not the answer"`.
    """

    line: int
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a data file holds.

    Attributes:
        file: the file.
        format: the name of its format.
        num_problems: how many rows are good.
        errors: every broken row, with file, line and reason.
        step_counts: how many problems have so many steps, by number of steps.
        num_duplicates: how many problems ask what an earlier one asks.
        doubts: every doubtful step; published sets have some, so they are warnings only.
        examples: the first few problems.
    """

    file: Path
    format: str
    num_problems: int
    errors: tuple[DataError, ...]
    step_counts: Mapping[int, int]
    num_duplicates: int
    doubts: tuple[Doubt, ...]
    examples: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether every row is good."""
        return not self.errors


def check_file(
    file: str | Path, benchmark: str | None = None, *, chain: str | None = None, num_examples: int = 3
) -> CheckReport:
    """Read every row of a file and report.

    Args:
        file: the file.
        benchmark: the benchmark whose format it has; by default its columns tell.
        chain: what the steps are made of, `"equations"` or `"sentences"`.
        num_examples: how many problems to keep as examples.

    Raises:
        DataError: there is no such file, benchmark or chain, or the columns tell no format.
    """
    file = Path(file)
    if benchmark is not None:
        chain = chain or benchmark_named(benchmark).chain
    outcomes = list(scan_problems(file, benchmark, chain=chain))
    good = [(line, outcome) for line, outcome in outcomes if isinstance(outcome, Problem)]
    problems = [problem for _, problem in good]
    return CheckReport(
        file=file,
        format=(format_named(benchmark) if benchmark else format_of_file(file)).name,
        num_problems=len(problems),
        errors=tuple(outcome for _, outcome in outcomes if isinstance(outcome, DataError)),
        step_counts=dict(sorted(Counter(len(problem.steps) for problem in problems).items())),
        num_duplicates=len(problems) - len({normalise_question(problem.question) for problem in problems}),
        doubts=tuple(concatenate.from_iterable(_doubts(line, problem) for line, problem in good)),
        examples=tuple(problems[:num_examples]),
    )


def _doubts(line: int, problem: Problem) -> Iterator[Doubt]:
    """What is doubtful in a chain of equations; sentences are taken as they are."""
    equation: Equation | None = None
    for step in problem.steps:
        if not step.startswith("<<"):
            return
        equation = parse_equation(step)
        if equation is None:
            yield Doubt(line, step, "unreadable equation")
        elif not equation.is_true(problem.modulus):
            yield Doubt(line, step, "false equation")
    answer = parse_number(problem.answer)
    if equation is not None and answer is not None and not numbers_match(equation.result, answer):
        yield Doubt(line, problem.steps[-1], "last result is not the answer")
