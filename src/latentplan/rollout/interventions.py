"""One change in the greedy chains of a whole set of problems, to see what becomes of the accuracy.

An intervention gives the latents `[rows, slots, hidden]` and the slot mask `[rows, slots]` that some rows of
the chains get instead of their own. Masked slots do not count as positions, as in a shorter chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from latentplan.modeling import counter_rng
from latentplan.modeling.counter_rng import Draws, Stream
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.thinking import Given, think
from latentplan.problems.problem import Problem
from latentplan.rollout.edits import answers_after, noised, reordered, zeroed
from latentplan.rollout.solve import GreedyChains, question_batch

Chains = tuple[torch.Tensor, torch.Tensor]
Intervention = Callable[[GreedyChains, slice, int], Chains]
"""Of the chains, the rows and the seed; gives latents `[rows, slots, hidden]` and mask `[rows, slots]`."""


def intact(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Leaves latents and slot mask as they are."""
    return chains.latents[rows], chains.slot_mask[rows]


def zero(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Sets the latents to zero; as many slots stay in use."""
    return zeroed(chains.latents[rows]), chains.slot_mask[rows]


def same_norm_noise(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Replaces each latent by Gaussian noise of its own norm, from the seed and the question's index."""
    keys = counter_rng.derive(seed, Stream.INTERVENTION, torch.tensor(chains.indices[rows]))
    return noised(chains.latents[rows], keys), chains.slot_mask[rows]


def of_another_question(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Takes latents and slots in use of the question before, by length; the first takes the last's."""
    donors = torch.arange(len(chains.indices))[rows] - 1
    return chains.latents[donors], chains.slot_mask[donors]


def of_an_equal_chain(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Takes latents of another question that uses as many slots, so that their number says nothing.

    Where there is none, those of the question before, as in `of_another_question`.
    """
    donors = torch.tensor(_donors(chains.slot_mask.sum(dim=1).tolist()))[rows]
    return chains.latents[donors], chains.slot_mask[donors]


def _donors(slots: Sequence[int]) -> list[int]:
    """Returns for each chain the one before it with as many slots; the first of these takes the last."""
    donors = [index - 1 for index in range(len(slots))]
    for size in set(slots):
        equal = [index for index, used in enumerate(slots) if used == size]
        if len(equal) > 1:
            for position, index in enumerate(equal):
                donors[index] = equal[position - 1]
    return donors


def first_steps(count: int, latents_per_step: int) -> Intervention:
    """Keeps the first `count` latent steps of each chain."""
    return _cut(lambda slot, used: slot < count * latents_per_step)


def last_step_only(latents_per_step: int) -> Intervention:
    """Keeps the last latent step in use and none before it."""
    return _cut(lambda slot, used: slot >= used - latents_per_step)


def all_but_last_step(latents_per_step: int) -> Intervention:
    """Keeps all latent steps in use but the last."""
    return _cut(lambda slot, used: slot < used - latents_per_step)


def _cut(keeps: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Intervention:
    """Keeps the slots for which this is true, given indices `[slots]` and numbers in use `[rows, 1]`."""

    def cut(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        mask = chains.slot_mask[rows]
        kept = keeps(torch.arange(mask.shape[1]), mask.sum(dim=1, keepdim=True))
        return chains.latents[rows], mask * kept

    return cut


def reversed_steps(latents_per_step: int) -> Intervention:
    """Puts the latent steps in use from last to first."""
    return _in_order(latents_per_step, lambda steps: range(steps - 1, -1, -1))


def rotated_steps(latents_per_step: int) -> Intervention:
    """Puts the last latent step in use first, then the others in their order."""
    return _in_order(latents_per_step, lambda steps: [steps - 1, *range(steps - 1)])


def _in_order(latents_per_step: int, order: Callable[[int], Sequence[int]]) -> Intervention:
    def reorder(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        latents, mask = chains.latents[rows], chains.slot_mask[rows]
        total = mask.shape[1] // latents_per_step
        used = (mask.sum(dim=1) // latents_per_step).tolist()
        orders = [[*(order(count) if count else ()), *range(count, total)] for count in used]
        return reordered(latents, torch.tensor(orders, dtype=torch.long), latents_per_step), mask

    return reorder


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
    """Writes the greedy completion of each chain's question after an intervention, in the chains' order."""
    completions: list[str] = []
    for start in range(0, len(chains.indices), batch_size):
        rows = slice(start, start + batch_size)
        questions = [problems[index].question for index in chains.indices[rows]]
        completions += answers_after(model, questions, *intervention(chains, rows, seed), max_new_tokens)
    return completions


@torch.no_grad()
def regenerate(
    model: LoadedModel, questions: Sequence[str], chains: GreedyChains, held: torch.Tensor, batch_size: int
) -> GreedyChains:
    """Computes the slots after the first `held` `[rows]` of each chain again, at the means.

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
