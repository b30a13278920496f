"""Questions that a training and a test set share: a model must not be trained on what it is evaluated on.

`trained_questions.npy` in a run tells evaluation which questions the run was trained on. It holds their
64-bit keys, sorted, and last the bound up to which it holds them. Of more than `MAX_KEYS` questions it holds
those with the smallest keys, which is a fair sample because a key is a hash: counts then are estimates.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from latentplan.problems.fingerprint import question_keys
from latentplan.problems.problem import DataError, Problem, normalise_question

QuestionKey = Callable[[str], str]
"""Maps a question to the text by which two questions count as the same."""

_SHOWN, _SHOWN_LENGTH = 5, 60
_NUMBER_WORDS = frozenset(
    re.findall(
        r"\w+",
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
        sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred
        thousand million billion once twice half""",
    )
)


def find_overlap(
    train: Iterable[Problem], test: Iterable[Problem], *, key: QuestionKey = normalise_question
) -> list[Problem]:
    """Returns the training problems whose question is also in the test set, in order.

    With `key=question_template`, a test set made by changing the numbers of known questions overlaps with its
    source too: of GSM-Hard's 1319 questions 329 are GSM8K test questions unchanged, 1318 but for the numbers.
    """
    tested = {key(problem.question) for problem in test}
    return [problem for problem in train if key(problem.question) in tested]


def remove_overlap(
    train: Iterable[Problem], test: Iterable[Problem], *, key: QuestionKey = normalise_question
) -> list[Problem]:
    """Returns the training problems whose question is not in the test set, in order; `key` as in
    `find_overlap`.
    """
    tested = {key(problem.question) for problem in test}
    return [problem for problem in train if key(problem.question) not in tested]


class ContaminationError(DataError):
    """Problems to train on are in an evaluation set."""


def refuse_overlap(
    train: Sequence[Problem],
    held_out: Mapping[str, Sequence[Problem]],
    place_of: Callable[[int], str] = lambda index: f"training problem {index}",
) -> None:
    """Checks that no training problem asks what a held-out set asks, layout aside.

    Args:
        train: the problems to train on, in memory or a store.
        held_out: the evaluation sets by name.
        place_of: where the training problem at an index, from 0, comes from: `train.jsonl:17`.

    Raises:
        ContaminationError: some do; names the set, how many and the first few, and says what to do.
    """
    keys = question_keys(train) if held_out else np.empty(0, dtype=np.uint64)
    for name, problems in held_out.items():
        shared = np.flatnonzero(np.isin(keys, question_keys(problems))).tolist()
        if shared:
            shown = [f"{place_of(index)} {_opening(train[index].question)}" for index in shared[:_SHOWN]]
            more = f", and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
            raise ContaminationError(
                f"{len(shared)} of {len(train)} training problems are questions of the evaluation set "
                f"{name}: {'; '.join(shown)}{more}. To train without them, list {name} under "
                "exclude_benchmarks; or train on another split"
            )


def _opening(question: str) -> str:
    text = " ".join(question.split())
    return repr(text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "…")


def question_template(question: str) -> str:
    """Returns the normalised question without its numbers, in digits or in words."""
    words = re.findall(r"[a-z]+", normalise_question(question))
    return " ".join(word for word in words if word not in _NUMBER_WORDS)


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
        """Returns those of the problems."""
        return cls(question_keys(problems))

    def __or__(self, other: TrainedQuestions) -> TrainedQuestions:
        return TrainedQuestions(np.concatenate([self.keys, other.keys]), min(self.below, other.below))

    def count(self, problems: Iterable[Problem]) -> int:
        """Counts the problems whose question was trained on; an estimate above `MAX_KEYS`."""
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
        """Returns those of a run, or of the run around a model folder or checkpoint; None where none can be
        read.
        """
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
