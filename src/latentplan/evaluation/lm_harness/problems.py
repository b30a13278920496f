"""What the task files in `tasks/` call: problems through latentplan's readers, answers by its comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latentplan.problems.answers import kind_of
from latentplan.problems.problem import DataError
from latentplan.problems.sources import parse_benchmark_argument


def load(benchmark: str, files: Mapping[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    """A benchmark's test problems as `{"test": Dataset}` with the columns question, answer and answer_kind.

    Args:
        benchmark: its name.
        files: files by benchmark, from `--metadata '{"files": {"svamp": "SVAMP.json"}}'`; the hub otherwise.
        metadata: what else the harness passes, the model's arguments among it.

    Raises:
        DataError: the file cannot be read, or `files` is no mapping of names to files.
    """
    from datasets import Dataset

    if files is not None and not isinstance(files, Mapping):
        raise DataError(f'"files" must be a mapping such as {{"svamp": "SVAMP.json"}}, got {files!r}')
    file = (files or {}).get(benchmark)
    argument = parse_benchmark_argument(benchmark if file is None else f"{benchmark}={file}")
    try:
        found = argument.load()
    except DataError as error:
        if file is not None:
            raise
        hint = f"""--metadata '{{"files": {{"{benchmark}": "FILE"}}}}'"""
        raise DataError(f"{error} (here with {hint})") from error
    rows = [
        {"question": each.question, "answer": each.answer, "answer_kind": each.answer_kind or ""}
        for each in found
    ]
    if not rows:
        raise DataError(f"{file or benchmark!r} holds no problems")
    return {"test": Dataset.from_list(rows)}


def question(row: Mapping[str, str]) -> str:
    """The prompt: the question as it stands, which a template would trim."""
    return row["question"]


def answer(row: Mapping[str, str]) -> str:
    """The right answer."""
    return row["answer"]


def accuracy(row: Mapping[str, str], completions: Sequence[str]) -> dict[str, float]:
    """Whether the marked answer is right, as `latentplan evaluate` decides it."""
    kind = kind_of(row["answer"], row["answer_kind"])
    return {"accuracy": float(kind.is_correct(completions[0], row["answer"]))}
