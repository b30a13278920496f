"""Fingerprints of problems: of their whole content, and of the question alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

import numpy as np

from latentplan.problems.problem import Problem


def canonical_line(problem: Problem) -> bytes:
    """Writes all of a problem as one line of JSON without its line break, equal for equal problems."""
    return json.dumps(problem.to_json(), sort_keys=True, ensure_ascii=False).encode()


def fingerprint(problems: Iterable[Problem]) -> str:
    """Computes the SHA-256 of whole problems in their order: what a run was trained on (`run.json`)."""
    digest = hashlib.sha256()
    for line in _canonical_lines(problems):
        digest.update(line)
    return digest.hexdigest()


def question_fingerprint(problems: Iterable[Problem]) -> str:
    """Computes 16 hexadecimal digits, equal for equal questions, steps and answers in equal order.

    What an evaluation was measured on (`data_fingerprint` of its result): other valid plans do not change it.
    """
    digest = hashlib.sha256()
    for problem in problems:
        row = [problem.question, list(problem.steps), problem.answer]
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]


def question_keys(problems: Iterable[Problem]) -> np.ndarray:
    """Returns the 64-bit `Problem.key` of each normalised question, uint64 `[problems]`."""
    stored = getattr(problems, "question_keys", None)
    if stored is not None:
        return np.asarray(stored)
    return np.array([int(problem.key, 16) for problem in problems], dtype=np.uint64)


def _canonical_lines(problems: Iterable[Problem]) -> Iterator[bytes]:
    """Returns those that a store on disk holds already, else made here."""
    stored = getattr(problems, "canonical_lines", None)
    return stored() if stored is not None else map(canonical_line, problems)
