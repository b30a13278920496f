"""Where a gain came from: from better latents, or from answer words that read the same latents better.

The greedy latents of each of two models, such as one before and one after RL, are answered by both. With
x(l, a) = 1 where the latents of l, answered by a, give the correct answer,

    from latents = ½ [x(after, before) − x(before, before)] + ½ [x(after, after) − x(before, after)]

and likewise for the answers, so that both add up to the gain (Shapley's value of two players, 1953, 'A value
for n-person games').
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from latentplan.evaluation.metrics import are_correct
from latentplan.evaluation.results import Estimate, SavedJson
from latentplan.evaluation.statistics import paired_interval, wilson_interval
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rollout.interventions import completions_with, intact
from latentplan.rollout.solve import evaluation_mode, greedy_chains

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Parts:
    """A gain taken apart, with 95% intervals over problems, paired for differences.

    Attributes:
        accuracy_before: greedy accuracy of the first model, latents and answers its own.
        accuracy_latents: of the second's latents, answered by the first.
        accuracy_answers: of the first's latents, answered by the second.
        accuracy_after: of the second, all its own.
        gain: the last minus the first.
        from_latents, from_answers: the two parts that it is the sum of.
    """

    accuracy_before: Estimate
    accuracy_latents: Estimate
    accuracy_answers: Estimate
    accuracy_after: Estimate
    gain: Estimate
    from_latents: Estimate
    from_answers: Estimate


@dataclass(frozen=True)
class Attribution(SavedJson):
    """Where a gain on a benchmark came from, as a JSON file.

    Attributes:
        benchmark, data_fingerprint, num_problems: what was solved.
        before, after: the folders of the two models.
        parts: the gain taken apart.
    """

    called: ClassVar[str] = "an attribution"

    benchmark: str
    data_fingerprint: str
    num_problems: int
    before: str
    after: str
    parts: Parts
    format_version: int = FORMAT_VERSION

    @classmethod
    def read_parts(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a row, with dataclasses instead of dictionaries."""
        return {**row, "parts": Parts(**{name: Estimate(**value) for name, value in row["parts"].items()})}


def crossed_answers(
    before: LoadedModel,
    after: LoadedModel,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    batch_size: int,
) -> np.ndarray:
    """Returns whether each problem is solved: `[latents of, answered by, problems]`, bool, `before` first.

    Raises:
        ValueError: the models' latents do not fit into each other.
    """
    check_pair(before, after)
    questions = [problem.question for problem in problems]
    solved = np.zeros((2, 2, len(problems)), dtype=bool)
    for thinks, thinker in enumerate((before, after)):
        with evaluation_mode(thinker):
            chains = greedy_chains(thinker, questions, batch_size=batch_size, with_plans=False)
        answered = [problems[index] for index in chains.indices]
        for answers, reader in enumerate((before, after)):
            with evaluation_mode(reader):
                completions = completions_with(
                    reader,
                    problems,
                    chains,
                    intact,
                    seed=0,
                    max_new_tokens=max_new_tokens,
                    batch_size=batch_size,
                )
            solved[thinks, answers, chains.indices] = are_correct(completions, answered)
    return solved


def take_apart(solved: np.ndarray) -> Parts:
    """Returns the estimates from what `crossed_answers` returns."""
    before, answered, thought, after = (
        solved[cell].astype(float) for cell in ((0, 0), (0, 1), (1, 0), (1, 1))
    )
    return Parts(
        accuracy_before=_share(before),
        accuracy_latents=_share(thought),
        accuracy_answers=_share(answered),
        accuracy_after=_share(after),
        gain=_difference(after - before),
        from_latents=_difference((thought - before + after - answered) / 2),
        from_answers=_difference((answered - before + after - thought) / 2),
    )


def _share(solved: np.ndarray) -> Estimate:
    return Estimate(*wilson_interval(int(solved.sum()), len(solved)))


def _difference(points: np.ndarray) -> Estimate:
    return Estimate(*paired_interval(points.tolist()))


def check_pair(before: LoadedModel, after: LoadedModel) -> None:
    """Raises ValueError where latents of one model mean nothing to the other."""
    one, other = before.reasoner.config, after.reasoner.config
    if not one.has_latents or not other.has_latents:
        raise ValueError("a model without latents has none to exchange: give two latent models")
    if before.tokenizer.get_vocab() != after.tokenizer.get_vocab():
        raise ValueError("latents cannot be exchanged: the two models have different tokens")
    for name in ("method", "hidden_size", "num_slots", "latents_per_step", "tokens_per_latent"):
        if getattr(one, name) != getattr(other, name):
            raise ValueError(
                f"latents cannot be exchanged: {name} is {getattr(one, name)} in the one model and "
                f"{getattr(other, name)} in the other; give a run and the run that it started from"
            )
