"""Which questions a run was trained on, as a small file in the run: so that evaluation can say so.

`trained_questions.npy` holds the 64-bit keys of the questions, sorted, and last the bound up to which it
holds them. Of more than `MAX_KEYS` questions it holds those with the smallest keys, which is a fair sample
because a key is a hash: counts then are estimates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from latentplan.problems.fingerprint import question_keys
from latentplan.problems.problem import Problem

TRAINED_QUESTIONS = "trained_questions.npy"
MAX_KEYS = 1_000_000
_EVERY_KEY = np.uint64(2**64 - 1)


class TrainedQuestions:
    """The questions that a run, and the runs that it started from, were trained on.

    Args:
        keys: `question_keys`, uint64 in any order.
        below: keys above this one are not kept.
    """

    def __init__(self, keys: np.ndarray, below: np.uint64 = _EVERY_KEY):
        keys = np.unique(keys[keys <= below])
        if len(keys) > MAX_KEYS:
            keys = keys[:MAX_KEYS]
            below = keys[-1]
        self.keys, self.below = keys, below

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> TrainedQuestions:
        """Those of the problems."""
        return cls(question_keys(problems))

    def __or__(self, other: TrainedQuestions) -> TrainedQuestions:
        return TrainedQuestions(np.concatenate([self.keys, other.keys]), min(self.below, other.below))

    def count(self, problems: Iterable[Problem]) -> int:
        """How many of the problems ask a question that was trained on; an estimate above `MAX_KEYS`."""
        keys = question_keys(problems)
        known = keys[keys <= self.below]
        hits = int(np.isin(known, self.keys).sum())
        return round(hits * len(keys) / len(known)) if len(known) else 0

    def save(self, run: Path) -> None:
        """Writes the file into a run directory, in one move."""
        temporary = run / f".{TRAINED_QUESTIONS}.{os.getpid()}"
        with temporary.open("wb") as file:
            np.save(file, np.append(self.keys, self.below))
        temporary.replace(run / TRAINED_QUESTIONS)

    @classmethod
    def load(cls, model: str | os.PathLike[str] | None) -> TrainedQuestions | None:
        """Those of a run, or of the run around a model folder or checkpoint; None where none can be read."""
        for folder in (Path(model), Path(model).parent) if model else ():
            if (folder / TRAINED_QUESTIONS).is_file():
                try:
                    stored = np.load(
                        folder / TRAINED_QUESTIONS, mmap_mode="r"
                    )  # so that no header takes memory
                    return cls(np.array(stored[:-1]), stored[-1])
                except (OSError, ValueError, IndexError, EOFError, TypeError):
                    return None
        return None
