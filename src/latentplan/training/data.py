"""The problems of a run: read or generated, joined, and cleared of evaluation questions.

Small sets are lists. Those of more than `IN_MEMORY` problems, and those that are streamed, are stores on
disk, kept in the cache by the data that they were read from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from latentplan.problems.decontamination import refuse_overlap
from latentplan.problems.fingerprint import question_keys
from latentplan.problems.problem import Problem, UnknownFormatError
from latentplan.problems.problem_store import ProblemStore, SelectedProblems
from latentplan.problems.sources import evaluation_set
from latentplan.training.reading import DataArguments, read_all


def load_training_problems(
    data: DataArguments, held_out: Mapping[str, Sequence[Problem]] | None = None
) -> tuple[Sequence[Problem], int]:
    """The training problems, and how many were removed because an evaluation set asks them too.

    `held_out` is checked like the sets that `held_out_benchmarks` names: a run's own validation problems.

    Raises:
        ContaminationError: a problem that is left is in a held-out set.
        DataError: a file cannot be read, with file, line and reason.
        ValueError: a data set or preset does not exist, or nothing is left.
    """
    read = read_all(data)
    places = np.arange(len(read.problems))
    if data.exclude_benchmarks:
        asked = [question_keys(_evaluation_problems(name, data)) for name in data.exclude_benchmarks]
        places = np.flatnonzero(~np.isin(question_keys(read.problems), np.concatenate(asked)))
    if not len(places):
        raise ValueError(f"there is no training problem in {', '.join(data.dataset_name)}")
    problems = _select(read.problems, places)
    others = {name: _evaluation_problems(name, data) for name in data.held_out_benchmarks}
    refuse_overlap(problems, {**others, **(held_out or {})}, lambda index: read.place_of(int(places[index])))
    return problems, len(read.problems) - len(places)


def common_modulus(problems: Sequence[Problem]) -> int | None:
    """The modulus that all problems have; None where they differ, or have none."""
    store = problems.items if isinstance(problems, SelectedProblems) else problems
    if isinstance(store, ProblemStore) and len(store.moduli) == 1:
        return next(iter(store.moduli))
    moduli = {problem.modulus for problem in problems}
    return moduli.pop() if len(moduli) == 1 else None


def _evaluation_problems(name: str, data: DataArguments) -> list[Problem]:
    """An evaluation set, by its own format where its columns tell one, else by the run's column map."""
    try:
        return evaluation_set(name)[1]()
    except UnknownFormatError:
        if not data.dataset_columns:
            raise
        return evaluation_set(name, columns=data.dataset_columns)[1]()


def _select(problems: Sequence[Problem], places: np.ndarray) -> Sequence[Problem]:
    if len(places) == len(problems):
        return problems
    if isinstance(problems, ProblemStore):
        return SelectedProblems(problems, places)
    return [problems[place] for place in places.tolist()]
