"""What the latents of a question are replaced by, to see what becomes of the answer.

An intervention gives the latents `[rows, slots, hidden]` and the slot mask `[rows, slots]` that some rows of
the greedy chains get instead of their own. Masked slots do not count as positions, as in a shorter chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from latentplan.modeling import counter_rng as noise
from latentplan.modeling.counter_rng import Draws, Stream
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.thinking import Given, think
from latentplan.problems.problem import Problem
from latentplan.rollout.engine import answer_from
from latentplan.rollout.solve import GreedyChains, question_batch

Chains = tuple[torch.Tensor, torch.Tensor]
Intervention = Callable[[GreedyChains, slice, int], Chains]
"""Of the chains, the rows and the seed."""


def intact(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """The latents `[rows, slots, hidden]` and slot mask `[rows, slots]` as they are."""
    return chains.latents[rows], chains.slot_mask[rows]


def zero(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Zeros in the slots that were in use."""
    return torch.zeros_like(chains.latents[rows]), chains.slot_mask[rows]


def same_norm_noise(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """In each slot, Gaussian noise of the latent's own norm, from the seed and the question's place."""
    keys = noise.derive(seed, Stream.INTERVENTION, torch.tensor(chains.places[rows]))
    return noise.of_same_norm(keys, chains.latents[rows]), chains.slot_mask[rows]


def of_another_question(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Latents and slots in use of the question before, in the order of length; the first gets the last's."""
    places = torch.arange(len(chains.places))[rows] - 1
    return chains.latents[places], chains.slot_mask[places]


def of_an_equal_chain(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Latents of another question that uses as many slots, so that their number says nothing.

    Where there is none, those of the question before, as in `of_another_question`.
    """
    donors = torch.tensor(_donors(chains.slot_mask.sum(dim=1).tolist()))[rows]
    return chains.latents[donors], chains.slot_mask[donors]


def first_steps(count: int, latents_per_step: int) -> Intervention:
    """Keeps the first `count` latent steps of each chain."""

    def keep(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        mask = chains.slot_mask[rows].clone()
        mask[:, count * latents_per_step :] = 0
        return chains.latents[rows], mask

    return keep


def last_step_only(latents_per_step: int) -> Intervention:
    """Keeps the last latent step in use and none before it."""

    def keep(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        mask = chains.slot_mask[rows].clone()
        places = torch.arange(mask.shape[1])
        mask[places < mask.sum(dim=1, keepdim=True) - latents_per_step] = 0
        return chains.latents[rows], mask

    return keep


def all_but_last_step(latents_per_step: int) -> Intervention:
    """Keeps all latent steps in use but the last."""

    def keep(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        mask = chains.slot_mask[rows].clone()
        places = torch.arange(mask.shape[1])
        mask[places >= mask.sum(dim=1, keepdim=True) - latents_per_step] = 0
        return chains.latents[rows], mask

    return keep


def reversed_steps(latents_per_step: int) -> Intervention:
    """The latent steps in use from last to first; the latents of one step keep their order."""
    return _in_order(latents_per_step, lambda steps: range(steps - 1, -1, -1))


def rotated_steps(latents_per_step: int) -> Intervention:
    """The last latent step in use first, then the others in their order."""
    return _in_order(latents_per_step, lambda steps: [steps - 1, *range(steps - 1)])


def completions_with(
    model: LoadedModel,
    problems: Sequence[Problem],
    chains: GreedyChains,
    intervention: Intervention,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """The greedy completion of each chain's question after an intervention, in the order of the chains."""
    completions: list[str] = []
    for start in range(0, len(chains.places), batch_size):
        rows = slice(start, start + batch_size)
        questions = [problems[place].question for place in chains.places[rows]]
        completions += _answers(model, questions, *intervention(chains, rows, seed), max_new_tokens)
    return completions


@torch.no_grad()
def think_on(
    model: LoadedModel, questions: Sequence[str], chains: GreedyChains, held: torch.Tensor, batch_size: int
) -> GreedyChains:
    """The chains with the slots after the first `held` `[rows]` of each computed again, at the means.

    What was held may be foreign: this shows whether later latents follow from earlier ones. As many slots
    are in use as before, and the plans are no longer known.
    """
    latents = chains.latents.clone()
    for start in range(0, len(latents), batch_size):
        rows = slice(start, start + batch_size)
        ids, mask = question_batch(model, questions[rows])
        slot_mask, first = chains.slot_mask[rows].to(ids.device), held[rows].to(ids.device)
        clamped = torch.arange(latents.shape[1], device=ids.device) < first.unsqueeze(1)
        given = Given.intervened(latents[rows].to(ids.device), clamped)
        state = model.reasoner.start(ids, mask)
        chain = think(model.reasoner, state, LatentLength(slot_mask), Draws(), 0.0, given)
        latents[rows] = chain.latents.to(latents)
    return replace(chains, latents=latents, plans=[None] * len(latents))


def _in_order(latents_per_step: int, order: Callable[[int], Sequence[int]]) -> Intervention:
    def reorder(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        latents, mask = chains.latents[rows].clone(), chains.slot_mask[rows]
        by_step = latents.unflatten(1, (-1, latents_per_step))
        for row, used in enumerate((mask.sum(dim=1) // latents_per_step).tolist()):
            by_step[row, :used] = by_step[row, list(order(used))] if used else by_step[row, :0]
        return latents, mask

    return reorder


def _donors(slots: Sequence[int]) -> list[int]:
    """For each chain the one before it with as many slots; the first of these gets the last."""
    donors = [place - 1 for place in range(len(slots))]
    for size in set(slots):
        places = [place for place, used in enumerate(slots) if used == size]
        if len(places) > 1:
            for index, place in enumerate(places):
                donors[place] = places[index - 1]
    return donors


def _answers(
    model: LoadedModel,
    questions: Sequence[str],
    latents: torch.Tensor,
    slot_mask: torch.Tensor,
    max_new_tokens: int,
) -> list[str]:
    ids, mask = question_batch(model, questions)
    unused_keys = torch.zeros(len(questions), dtype=torch.long, device=ids.device)
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
