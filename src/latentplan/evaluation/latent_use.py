"""Do the latents cause the answer? The answers again, with the latents replaced by something else.

The greedy latents of each question are put back, set to zero, replaced by noise of the same norm, or by
those of another question. A model whose accuracy stays is a silent failure: its latents are ornament.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentplan.evaluation.interventions import (
    Intervention,
    completions_with,
    intact,
    of_another_question,
    same_norm_noise,
    zero,
)
from latentplan.evaluation.predictions import are_correct
from latentplan.evaluation.results import LatentUse
from latentplan.evaluation.rollouts import GreedyChains
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem


def measure_latent_use(
    model: LoadedModel,
    problems: Sequence[Problem],
    chains: GreedyChains,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
) -> LatentUse:
    """Greedy accuracy after each intervention; `other_question` is None where there is only one problem."""
    answered = [problems[place] for place in chains.places]

    def accuracy(intervention: Intervention) -> float:
        completions = completions_with(
            model,
            problems,
            chains,
            intervention,
            seed=seed,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
        return sum(are_correct(completions, answered)) / len(completions)

    return LatentUse(
        intact=accuracy(intact),
        zero=accuracy(zero),
        noise=accuracy(same_norm_noise),
        other_question=accuracy(of_another_question) if len(chains.places) > 1 else None,
    )
