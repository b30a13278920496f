"""A whole set of problems rolled out in batches of similar length, timed, and its greedy chains kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.rollout.engine import generate
from latentplan.rollout.plans import Plan
from latentplan.rollout.sampling import Sampling
from latentplan.rollout.solve import question_batch, read_solutions
from latentplan.rollout.trajectories import Trajectories


@dataclass(frozen=True)
class RolledBatch:
    """The trajectories of one batch.

    Attributes:
        places: of its questions in the whole set.
        trajectories: all generations of these questions.
        seconds: that generation took, the device having finished.
    """

    places: list[int]
    trajectories: Trajectories
    seconds: float


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


def batches_by_length(questions: Sequence[str], batch_size: int) -> list[list[int]]:
    """The places of the questions in batches, shortest question first, so that there is little padding."""
    order = sorted(range(len(questions)), key=lambda place: (len(questions[place]), place))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def roll_out(
    model: LoadedModel,
    questions: Sequence[str],
    sampling: Sampling,
    *,
    seed: int,
    num_generations: int = 1,
    batch_size: int = 128,
) -> Iterator[RolledBatch]:
    """`num_generations` trajectories of each question; `batch_size` trajectories at a time, of whole groups.

    A question's noise follows from `seed` and its place in `questions`, as in `rollout.solve`.
    """
    for places in batches_by_length(questions, max(1, batch_size // num_generations)):
        ids, mask = question_batch(model, [questions[place] for place in places])
        started = _now(ids.device)
        trajectories = generate(
            model.reasoner,
            ids,
            mask,
            torch.tensor(places, device=ids.device),
            seed=seed,
            sampling=sampling,
            draws=num_generations,
        )
        yield RolledBatch(places, trajectories, _now(ids.device) - started)


def greedy_chains(model: LoadedModel, questions: Sequence[str], *, batch_size: int) -> GreedyChains:
    """The chains of the most probable trajectories, for runs that sampled others; answers are not needed."""
    parts = []
    for batch in roll_out(model, questions, Sampling.greedy(1), seed=0, batch_size=batch_size):
        solutions = read_solutions(model, batch.trajectories)
        parts.append(chains_of(batch, [solution.plan for solution in solutions]))
    return GreedyChains.join(parts)


def chains_of(batch: RolledBatch, plans: Sequence[Plan | None]) -> GreedyChains:
    """The chains of a greedy batch with one trajectory a question."""
    trajectories = batch.trajectories
    return GreedyChains(batch.places, trajectories.latents.cpu(), trajectories.slot_mask.cpu(), list(plans))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
