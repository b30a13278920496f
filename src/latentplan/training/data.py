"""The problems of a run: read or generated, joined, and cleared of evaluation questions."""

from __future__ import annotations

from collections.abc import Sequence

from latentplan.encoding.encoder import EncodedProblem, Encoder
from latentplan.problems.benchmarks import parse_benchmark_argument
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.overlap import remove_overlap
from latentplan.problems.problem import Problem
from latentplan.training.arguments import DataArguments

MINIGSM = "minigsm"


def load_training_problems(data: DataArguments) -> tuple[list[Problem], int]:
    """The training problems, and how many were removed because an evaluation set asks them too.

    Raises:
        DataError: a file cannot be read, with file, line and reason.
        ValueError: a data set or preset does not exist, or nothing is left.
    """
    problems: list[Problem] = []
    for name in data.dataset_name:
        problems += _load(name, data)
    removed = 0
    for name in data.exclude_benchmarks:
        before = len(problems)
        problems = remove_overlap(problems, parse_benchmark_argument(name).load(split="test"))
        removed += before - len(problems)
    if not problems:
        raise ValueError(f"there is no training problem in {', '.join(data.dataset_name)}")
    return problems, removed


def _load(name: str, data: DataArguments) -> list[Problem]:
    if name != MINIGSM:
        return parse_benchmark_argument(name).load(split=data.dataset_train_split, limit=data.dataset_size)
    if data.dataset_config not in PRESETS:
        raise ValueError(f"dataset_config must be a minigsm preset, one of {sorted(PRESETS)}")
    size = data.dataset_size or 50_000
    return list(generate(PRESETS[data.dataset_config], split="train", count=size, seed=data.dataset_seed))


def encode_problems(
    problems: Sequence[Problem], encoder: Encoder, data: DataArguments
) -> tuple[list[EncodedProblem], list[Problem]]:
    """Token ids of each problem, and the problems kept: those longer than the limits are left out.

    Raises:
        ValueError: nothing is short enough.
    """
    encoded, kept = [], []
    for problem, ids in zip(problems, encoder.encode_all(problems), strict=True):
        text = sum(map(len, ids.steps)) + len(ids.answer)
        if data.max_question_tokens is not None and len(ids.question) > data.max_question_tokens:
            continue
        if data.max_text_tokens is not None and text > data.max_text_tokens:
            continue
        encoded.append(ids)
        kept.append(problem)
    if not kept:
        raise ValueError(
            f"none of {len(problems)} problems is short enough: raise max_question_tokens or max_text_tokens"
        )
    return encoded, kept
