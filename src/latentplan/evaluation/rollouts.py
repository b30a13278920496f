"""The greedy chains of a whole set of problems, and the mode in which a model is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.plan_decoding import Plan
from latentplan.rollout.solve import RolledBatch, read_solutions, roll_out


@dataclass(frozen=True)
class GreedyChains:
    """The latents of the most probable trajectory of each question, on the CPU.

    Attributes:
        places: `[questions]`, of the questions in the whole set, in the order of their length.
        latents: `[questions, slots, hidden]`.
        slot_mask: `[questions, slots]`, 1 where a slot is in use.
        plans: the decoded steps of each chain; None without a step decoder.
    """

    places: list[int]
    latents: torch.Tensor
    slot_mask: torch.Tensor
    plans: list[Plan | None]

    @classmethod
    def join(cls, parts: Sequence[GreedyChains]) -> GreedyChains:
        """Batches to one set, in their order."""
        return cls(
            places=[place for part in parts for place in part.places],
            latents=torch.cat([part.latents for part in parts]),
            slot_mask=torch.cat([part.slot_mask for part in parts]),
            plans=[plan for part in parts for plan in part.plans],
        )


@contextmanager
def evaluation_mode(model: LoadedModel) -> Iterator[None]:
    """Switches dropout off, and the modules back to the mode that they were in, so a trainer can evaluate."""
    modules = [part for part in (model.reasoner, model.step_decoder) if part is not None]
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, training in zip(modules, were_training, strict=True):
            module.train(training)


def greedy_chains(
    model: LoadedModel, questions: Sequence[str], *, batch_size: int, with_plans: bool = True
) -> GreedyChains:
    """The chains of the most probable trajectories, for runs that sampled others; answers are not needed."""
    parts = []
    for batch in roll_out(model, questions, Sampling.greedy(1), seed=0, batch_size=batch_size):
        solutions = read_solutions(model, batch.trajectories, with_plans)
        parts.append(chains_of(batch, [solution.plan for solution in solutions]))
    return GreedyChains.join(parts)


def chains_of(batch: RolledBatch, plans: Sequence[Plan | None]) -> GreedyChains:
    """The chains of a greedy batch with one trajectory a question."""
    trajectories = batch.trajectories
    return GreedyChains(batch.places, trajectories.latents.cpu(), trajectories.slot_mask.cpu(), list(plans))
