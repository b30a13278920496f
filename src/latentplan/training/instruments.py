"""Instruments of RL: where rewards differ from, how much of the gradient is signal, how far latents moved.

All are measured on samples of the policy as it is, and change nothing of the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from latentplan.problems.problem import Problem
from latentplan.rollout.variance_split import VarianceSplit, measure_variance
from latentplan.training.agreement import Gradient, add_to, agreement, gradients
from latentplan.training.learning_rates import trained_parts
from latentplan.training.rollouts import Minibatch, reward
from latentplan.training.sharding import is_sharded
from latentplan.training.validation import ValidationSet, means_of

if TYPE_CHECKING:
    from latentplan.training.grpo import GRPOTrainer

VARIANCE_PROBLEMS = 64
"""Problems that the variance of rewards is taken apart on."""


def measure_signal(trainer: GRPOTrainer) -> dict[str, float]:
    """All instruments on the first validation problems, by metric; nothing for models without latents."""
    assert trainer.validation is not None
    if not trainer.loaded.reasoner.config.num_slots:
        return {}
    agreed = gradient_agreement(trainer, trainer.validation.problems)
    moved = None if trainer.drift is None else trainer.drift.measure(trainer.loaded)
    return {
        **_variance_shares(trainer, trainer.validation),
        **{f"agreement/{name}": value for name, value in agreed.items()},
        **({} if moved is None else {"latents/drift": moved}),
    }


def reward_variance(trainer: GRPOTrainer, problems: Sequence[Problem], first: int = 0) -> VarianceSplit:
    """Where the rewards of samples of these problems differ from; `first` as in `measure_variance`."""
    return measure_variance(
        trainer.loaded,
        problems,
        lambda *samples: reward(trainer.rewards, *samples).totals,
        trainer.sampling,
        seed=trainer.args.seed,
        first=first,
    )


def _variance_shares(trainer: GRPOTrainer, validation: ValidationSet) -> dict[str, float]:
    """Each part's share of the reward's variance within a question's samples, on any number of processes."""
    chosen = ValidationSet(validation.problems[:VARIANCE_PROBLEMS], [])
    mine = chosen.part(trainer.args.process_index, trainer.args.world_size)
    problems = [chosen.problems[place] for place in mine]
    sums = dict.fromkeys(("latents", "stops", "answers"), (0.0, 0.0))
    if problems:
        found, count = reward_variance(trainer, problems, mine.start), float(len(problems))
        sums = {name: (value * count, count) for name, value in vars(found).items()}
    shares = VarianceSplit(**means_of(trainer.everywhere(sums))).shares()
    return {f"variance/{name}": share for name, share in shares.items()}


def gradient_agreement(trainer: GRPOTrainer, problems: Sequence[Problem]) -> dict[str, float]:
    """How much two halves of these problems' samples agree on where to move the policy: cosines.

    For each kind of action (`latents`, `answers`, `plans`) and `likelihood` over all parameters, and for each
    part (`backbone`, `latent_head`, `stop_head`) over all kinds. Rollouts and minibatches are of the size of
    training at most; nothing is trained, recorded or counted. Empty where there are fewer than two problems,
    with `signal_problems: 0`, and where weights are spread over devices.
    """
    half = min(len(problems), trainer.args.signal_problems) // 2
    if not half or is_sharded(trainer.accelerator):
        return {}
    with trainer.unrecorded(), torch.no_grad():
        one, other = (_gradients(trainer, problems, range(first, 2 * half, 2)) for first in (0, 1))
    return agreement(one, other, list(trained_parts(trainer.model)))


def _gradients(trainer: GRPOTrainer, problems: Sequence[Problem], places: range) -> dict[str, Gradient]:
    """What each kind of action would teach the reasoner about the problems at `places`, on the CPU."""
    size = trainer.args.per_device_train_batch_size // trainer.args.num_generations
    size = min(size, len(places))
    total: dict[str, Gradient] = {}
    items = None  # those of the first rollout divide all: an action weighs the same in each
    # Minibatches are means and have to weigh the same: what does not fill one is left out.
    for start in range(0, len(places) // size * size, size * trainer.minibatches):
        chosen = places[start : min(start + size * trainer.minibatches, len(places) // size * size)]
        sampled = trainer.sample([problems[place] for place in chosen], chosen, trainer.args.seed)
        minibatches = trainer.split(sampled, trainer.rewards_of(sampled), len(chosen) // size)
        items = items or minibatches[0].num_items
        for minibatch in minibatches:
            for kind, gradient in _taught(trainer, replace(minibatch, num_items=items)).items():
                add_to(total.setdefault(kind, {}), gradient)
    return {kind: {name: value.cpu() for name, value in gradient.items()} for kind, gradient in total.items()}


def _taught(trainer: GRPOTrainer, minibatch: Minibatch) -> dict[str, Gradient]:
    with torch.enable_grad():
        losses = trainer.losses(trainer.model, minibatch)
        losses.pop("kl", None)
        return gradients(losses, trainer.model.reasoner)
