"""Do the latents cause the answer? The answers again, with the latents replaced by something else.

The greedy latents of each question are put back, set to zero, replaced by noise of the same norm, or by
those of another question. A model whose accuracy stays is a silent failure: its latents are ornament.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from latentplan.evaluation.predictions import are_correct
from latentplan.evaluation.results import LatentUse
from latentplan.evaluation.rollouts import GreedyChains
from latentplan.modeling import noise
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rollout.engine import answer_from
from latentplan.rollout.sampling import Sampling
from latentplan.rollout.solve import question_batch

Chains = tuple[torch.Tensor, torch.Tensor]
Intervention = Callable[[GreedyChains, slice, int], Chains]

_NOISE = 3


def intact(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """The latents `[rows, slots, hidden]` and slot mask `[rows, slots]` as they are."""
    return chains.latents[rows], chains.slot_mask[rows]


def zero(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Zeros in the slots that were in use."""
    return torch.zeros_like(chains.latents[rows]), chains.slot_mask[rows]


def same_norm_noise(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """In each slot, Gaussian noise of the latent's own norm, from the seed and the question's place."""
    latents = chains.latents[rows]
    keys = noise.fold(seed, torch.tensor(chains.places[rows]), _NOISE)
    random = noise.gaussian(keys, *latents.shape[1:])
    length = latents.norm(dim=-1, keepdim=True) / random.norm(dim=-1, keepdim=True)
    return random * length, chains.slot_mask[rows]


def of_another_question(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Latents and slots in use of the question before, in the order of length; the first gets the last's."""
    places = torch.arange(len(chains.places))[rows] - 1
    return chains.latents[places], chains.slot_mask[places]


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

    def accuracy(intervention: Intervention) -> float:
        correct: list[bool] = []
        for start in range(0, len(chains.places), batch_size):
            rows = slice(start, start + batch_size)
            answered = [problems[place] for place in chains.places[rows]]
            completions = _answers(model, answered, *intervention(chains, rows, seed), max_new_tokens)
            correct += are_correct(completions, [problem.answer for problem in answered])
        return sum(correct) / len(correct)

    return LatentUse(
        intact=accuracy(intact),
        zero=accuracy(zero),
        noise=accuracy(same_norm_noise),
        other_question=accuracy(of_another_question) if len(chains.places) > 1 else None,
    )


def _answers(
    model: LoadedModel,
    problems: Sequence[Problem],
    latents: torch.Tensor,
    slot_mask: torch.Tensor,
    max_new_tokens: int,
) -> list[str]:
    ids, mask = question_batch(model, [problem.question for problem in problems])
    unused_keys = torch.zeros(len(problems), dtype=torch.long, device=ids.device)
    answer_ids = answer_from(
        model.reasoner,
        ids,
        mask,
        latents.to(ids.device),
        slot_mask.to(ids.device),
        unused_keys,
        Sampling.greedy(max_new_tokens),
    )
    return model.tokenizer.batch_decode(answer_ids, skip_special_tokens=True)
