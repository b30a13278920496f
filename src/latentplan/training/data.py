"""The problems of a run: read or generated, joined, cleared of evaluation questions, and tokenised.

Small sets are lists. Those of more than `IN_MEMORY` problems, and those that are streamed, are stores on
disk, kept in the cache: the problems by the data that they were read from, the token ids by the problems, the
tokenizer and the layout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from latentplan.encoding.control_tokens import ControlTokenError
from latentplan.encoding.processor import EncodedProblem, Encoder
from latentplan.encoding.token_store import EncodedStore, encoder_fingerprint, write_encoded
from latentplan.problems.decontamination import refuse_overlap
from latentplan.problems.disk_cache import Cache, cache_root
from latentplan.problems.fingerprint import question_keys
from latentplan.problems.problem import DataError, Problem, UnknownFormatError
from latentplan.problems.problem_store import ProblemStore, Selected, SelectedProblems
from latentplan.problems.sources import evaluation_set
from latentplan.training.arguments import DataArguments
from latentplan.training.reading import counting, read_all


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


def encode_problems(
    problems: Sequence[Problem],
    encoder: Encoder,
    data: DataArguments,
    sources: Sequence[DataArguments] | None = None,
) -> tuple[Sequence[EncodedProblem], Sequence[Problem]]:
    """Token ids of each problem, and the problems kept: those longer than the limits are left out.

    Args:
        problems: of a run.
        encoder: of its model.
        data: its settings.
        sources: where the problems were read from; `data` where it is None.

    Raises:
        DataError: a problem holds a control token of the model; with file and line.
        ValueError: nothing is short enough.
    """
    try:
        return _encode_problems(problems, encoder, data)
    except ControlTokenError as error:
        places = (_place_of(error.problem, each) for each in sources or [data])
        place = next((place for place in places if place is not None), None)
        raise DataError(str(error), file=place) from error


def _place_of(problem: Problem | None, data: DataArguments) -> str | None:
    """File and line of a problem, for an error: the data are read again. None where it is not among them."""
    read = read_all(data)
    return next((read.place_of(at) for at, other in enumerate(read.problems) if other == problem), None)


def _encode_problems(
    problems: Sequence[Problem], encoder: Encoder, data: DataArguments
) -> tuple[Sequence[EncodedProblem], Sequence[Problem]]:
    encoded: Sequence[EncodedProblem]
    kept: Sequence[Problem]
    if isinstance(problems, ProblemStore | SelectedProblems):
        encoded, kept = _encode_stored(problems, encoder, data)
    else:
        ids = encoder.encode_all(problems)
        question = np.array([len(each.question) for each in ids])
        text = np.array([sum(map(len, each.steps)) + len(each.answer) for each in ids])
        places = np.flatnonzero(_short(question, text, data)).tolist()
        encoded, kept = [ids[place] for place in places], [problems[place] for place in places]
    if not kept:
        raise ValueError(
            f"none of {len(problems)} problems is short enough: raise max_question_tokens or max_text_tokens"
        )
    return encoded, kept


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


def _encode_stored(
    problems: ProblemStore | SelectedProblems, encoder: Encoder, data: DataArguments
) -> tuple[Selected[EncodedProblem], SelectedProblems]:
    """All problems of the store are tokenised, so that what a run leaves out does not change the cache."""
    store, places = (
        (problems.items, problems.places)
        if isinstance(problems, SelectedProblems)
        else (problems, np.arange(len(problems)))
    )
    key = hashlib.sha256(f"{store.fingerprint} {encoder_fingerprint(encoder)}".encode()).hexdigest()[:32]
    with counting("tokenising", len(store)) as advance:
        folder = Cache(cache_root(data.dataset_cache_dir)).make(
            f"encoded-{key}", lambda folder: write_encoded(folder, store, encoder, advance)
        )
    encoded = EncodedStore(folder)
    places = places[_short(*encoded.lengths(), data)[places]]
    return Selected(encoded, places), SelectedProblems(store, places)


def _short(question: np.ndarray, text: np.ndarray, data: DataArguments) -> np.ndarray:
    """Which problems are within the limits, by the tokens of their question and of their text."""
    short = np.ones(len(question), dtype=bool)
    if data.max_question_tokens is not None:
        short &= question <= data.max_question_tokens
    if data.max_text_tokens is not None:
        short &= text <= data.max_text_tokens
    return short
