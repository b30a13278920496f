"""Samplers: which problem is trained at which optimisation step, and which questions each rollout has.

For supervised training the problems form one fixed sequence, whatever the devices. Position p belongs to
optimisation step p // effective batch, so that the stage of a row, its index in the shuffle and its noise
follow from its position alone; resuming skips positions. For RL, each rollout has whole groups of questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset, Sampler

from latentplan.encoding.curriculum import Curriculum
from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor
from latentplan.methods.base import Method
from latentplan.modeling import counter_rng
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.training.configs import GRPOConfig


class Place(NamedTuple):
    """One position of the sequence: which problem, at which stage, and the position itself."""

    index: int  # type: ignore[assignment]
    stage: int
    position: int


class PlanSampler(Sampler[Place]):
    """Shuffled passes over the data, through all stages of the curriculum.

    Args:
        num_problems: problems in the data.
        curriculum: stages and their durations in optimisation steps.
        effective_batch: rows of one optimisation step over all devices and accumulated micro-batches.
        seed: of the shuffle.
    """

    def __init__(self, num_problems: int, curriculum: Curriculum, effective_batch: int, seed: int):
        if num_problems < 1:
            raise ValueError("there is no problem to train on")
        self.num_problems, self.curriculum = num_problems, curriculum
        self.effective_batch, self.seed = effective_batch, seed

    def __len__(self) -> int:
        return self.curriculum.total_steps * self.effective_batch

    def __iter__(self) -> Iterator[Place]:
        order: list[int] = []
        for position in range(len(self)):
            passes, offset = divmod(position, self.num_problems)
            if offset == 0:
                order = shuffled(self.num_problems, self.seed, passes)
            yield Place(order[offset], self.curriculum.stage(position // self.effective_batch), position)


def shuffled(count: int, seed: int, passes: int) -> list[int]:
    """The order of the data in one pass."""
    generator = torch.Generator().manual_seed(int(counter_rng.fold(seed, passes)) & (2**63 - 1))
    return torch.randperm(count, generator=generator).tolist()


class PlacedProblems(Dataset):
    """Encoded problems, each with the place of the sequence that the sampler gives it."""

    def __init__(self, encoded: Sequence[EncodedProblem]):
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, place: Place) -> tuple[EncodedProblem, Place]:
        return self.encoded[place.index], place


class StageCollator:
    """Problems, each laid out at its stage, to a batch; keys are functions of (seed, index, position)."""

    def __init__(self, processor: ProblemProcessor, method: Method, config: LatentReasonerConfig, seed: int):
        self.processor, self.method, self.config, self.seed = processor, method, config, seed

    def __call__(self, items: Sequence[tuple[EncodedProblem, Place]]) -> Batch:
        """The batch of a micro-batch's problems."""
        problems, places = zip(*items, strict=True)
        index = torch.tensor([place.index for place in places])
        position = torch.tensor([place.position for place in places])
        keys = counter_rng.derive(self.seed, counter_rng.Stream.EXAMPLE, index, position)
        stages = [place.stage for place in places]
        return self.method.batch(self.processor, problems, stages, self.config, keys)


def check_batches(config: GRPOConfig) -> tuple[int, int]:
    """Minibatches of a rollout, and questions of a rollout on each device.

    Raises:
        ValueError: the sizes do not divide; the message says which.
    """
    minibatches = config.steps_per_generation or config.gradient_accumulation_steps
    group = config.num_generations
    if group % config.answers_per_latent:
        raise ValueError(
            f"num_generations={group} must be a multiple of answers_per_latent={config.answers_per_latent}"
        )
    if config.per_device_train_batch_size % group:
        raise ValueError(
            f"per_device_train_batch_size={config.per_device_train_batch_size} counts trajectories "
            f"and must be a multiple of num_generations={group}"
        )
    if (minibatches * config.num_iterations) % config.gradient_accumulation_steps:
        raise ValueError(
            f"steps_per_generation·num_iterations={minibatches * config.num_iterations} must be "
            f"a multiple of gradient_accumulation_steps={config.gradient_accumulation_steps}"
        )
    if config.loss_type == "bnpo" and config.gradient_accumulation_steps * config.world_size > 1:
        raise ValueError(
            "loss_type bnpo averages over all actions of a batch and needs it in one piece: use one device "
            "and gradient_accumulation_steps 1, or loss_type dapo, which counts those of the whole rollout"
        )
    updates = minibatches * config.num_iterations // config.gradient_accumulation_steps
    # The best checkpoint is saved where it is found.
    setting = "eval_steps" if config.save_strategy == "best" else "save_steps"
    if config.save_strategy != "no" and getattr(config, setting) % updates:
        raise ValueError(
            f"{setting}={getattr(config, setting)} must be a multiple of the {updates} optimisation steps of "
            "a rollout, so that a resumed run rolls out with the same weights"
        )
    return minibatches, minibatches * config.per_device_train_batch_size // group


class QuestionSampler(Sampler[int]):
    """Shuffled questions; those of a rollout come again for each of its minibatches.

    Yields pass · num_problems + question, so that a question that comes again has other noise.
    """

    def __init__(self, num_problems: int, per_rollout: int, repeats: int, rollouts: int, seed: int):
        if num_problems < 1:
            raise ValueError("there is no problem to train on")
        self.num_problems, self.per_rollout = num_problems, per_rollout
        self.repeats, self.rollouts, self.seed = repeats, rollouts, seed

    def __len__(self) -> int:
        return self.per_rollout * self.repeats * self.rollouts

    def __iter__(self) -> Iterator[int]:
        order: list[int] = []
        passes = 0
        for _ in range(self.rollouts):
            while len(order) < self.per_rollout:
                first = passes * self.num_problems
                order += [first + index for index in shuffled(self.num_problems, self.seed, passes)]
                passes += 1
            questions, order = order[: self.per_rollout], order[self.per_rollout :]
            for _ in range(self.repeats):
                yield from questions


class Indices(Dataset):
    """The numbers from 0 up to `count`."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def as_batch(indices: Sequence[int]) -> dict[str, torch.Tensor]:
    """Numbers as a batch, `[questions]`."""
    return {"indices": torch.tensor(indices)}
