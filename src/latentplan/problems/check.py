"""What a data file holds, and what is wrong with it: the report behind `latentplan data check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentplan.problems.equations import Equation, parse_equation
from latentplan.problems.formats.own_data import ColumnMap
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.sources import BenchmarkArgument, Reading, parse_benchmark_argument

ControlTokenCheck = Callable[[Problem], tuple[str | None, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that can be read, but should be looked at.

    Attributes:
        line: where its problem starts in the file.
        step: the step, or what else it is about.
        reason: such as `"false equation"`, `"unreadable equation"`, or `"last result is not the answer"`.
    """

    line: int
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a data file holds.

    Attributes:
        file: the file, or the hub's id and split.
        format: the name of its format.
        num_problems: how many rows are good.
        errors: every broken row, with file, line and reason.
        step_counts: how many problems have so many steps, by number of steps.
        num_duplicates: how many problems ask what an earlier one asks.
        doubts: everything doubtful; published sets have some, so they are warnings only.
        examples: the first few problems.
        answer_kinds: how many problems have each kind of answer, by its name.
    """

    file: str
    format: str
    num_problems: int
    errors: tuple[DataError, ...]
    step_counts: Mapping[int, int]
    num_duplicates: int
    doubts: tuple[Doubt, ...]
    examples: tuple[Problem, ...]
    answer_kinds: Mapping[str, int]

    @property
    def ok(self) -> bool:
        """Whether every row is good."""
        return not self.errors


def check_file(
    file: str | Path,
    benchmark: str | None = None,
    *,
    chain: str | None = None,
    columns: ColumnMap | None = None,
    split: str = "train",
    num_examples: int = 3,
    control_tokens: ControlTokenCheck = lambda problem: (None, ()),
) -> CheckReport:
    """Read every row of a file, or of a data set of the hub, and report.

    Args:
        file: the file, or any other data that `parse_benchmark_argument` reads.
        benchmark: the benchmark whose format a file has; by default its columns tell.
        chain: what the steps are made of, `"equations"` or `"sentences"`.
        columns: which column holds which field, where the data has no known format.
        split: which part to take from the hub.
        num_examples: how many problems to keep as examples.
        control_tokens: tells why a problem is refused for a control token, and what in it may be one.

    Raises:
        DataError: there is no such file, benchmark or chain, or the columns tell no format.
    """
    argument = BenchmarkArgument(benchmark, Path(file)) if benchmark else _argument(str(file))
    scan = argument.scan(Reading(split=split, chain=chain, columns=columns))
    errors: list[DataError] = []
    doubts: list[Doubt] = []
    examples: list[Problem] = []
    step_counts: Counter[int] = Counter()
    answer_kinds: Counter[str] = Counter()
    questions: set[str] = set()
    for line, outcome in scan.outcomes:
        if isinstance(outcome, DataError):
            errors.append(outcome)
            continue
        refused, doubtful = control_tokens(outcome)
        if refused is not None:
            errors.append(DataError(refused, file=scan.source, line=line))
            continue
        doubts += [Doubt(line, mark, "looks like a control token") for mark in doubtful]
        doubts += _doubts(line, outcome)
        step_counts[len(outcome.steps)] += 1
        answer_kinds[outcome.answer_kind or outcome.kind.name] += 1
        questions.add(outcome.key)
        if len(examples) < num_examples:
            examples.append(outcome)
    return CheckReport(
        file=scan.source,
        format=scan.format,
        num_problems=step_counts.total(),
        errors=tuple(errors),
        step_counts=dict(sorted(step_counts.items())),
        num_duplicates=step_counts.total() - len(questions),
        doubts=tuple(doubts),
        examples=tuple(examples),
        answer_kinds=dict(sorted(answer_kinds.items())),
    )


def _argument(name: str) -> BenchmarkArgument:
    """Returns what a name stands for; one that can only be a file's is taken for a file, which then is
    missing.
    """
    if Path(name).suffix and not Path(name).exists() and name.count("=") == 0:
        return BenchmarkArgument(None, Path(name))
    return parse_benchmark_argument(name)


def _doubts(line: int, problem: Problem) -> Iterator[Doubt]:
    """Returns what is doubtful in a chain of equations; sentences are taken as they are."""
    equation: Equation | None = None
    for step in problem.steps:
        if not step.startswith("<<"):
            return
        equation = parse_equation(step)
        if equation is None:
            yield Doubt(line, step, "unreadable equation")
        elif not equation.is_true(problem.modulus):
            yield Doubt(line, step, "false equation")
    kind = problem.kind
    is_number = kind.computed and kind.number(problem.answer) is not None
    if equation is not None and is_number and not kind.is_result(equation.result, problem.answer):
        yield Doubt(line, problem.steps[-1], "last result is not the answer")
