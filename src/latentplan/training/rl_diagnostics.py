"""Diagnostics of RL: the split of the reward variance, the gradient cosine, the distance of latents in σ.

All are measured on samples of the policy and do not change its training.

- The reward variance is split into parts of latents, stops and answers.
- The gradient cosine compares the gradients of two independent halves of a batch. Its expectation is
  s / (s + n), where s is the squared norm of the expected gradient and n the variance of a half's: 1 is all
  signal, 0 all noise.
- The distance in σ says how far RL has moved the latents since its start.

The starting policy is measured when training begins, because only then a sharded model is on its devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from latentplan.problems.problem import Problem
from latentplan.rollout.variance_split import VarianceSplit, measure_variance
from latentplan.training.distributed import is_sharded
from latentplan.training.parameter_groups import trained_parts
from latentplan.training.rollout_batch import Minibatch, reward
from latentplan.training.validation import ValidationSet, means_of

if TYPE_CHECKING:
    from latentplan.training.grpo_trainer import GRPOTrainer
import random
import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.decoding_accuracy import teacher_share
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import score
from latentplan.rollout.solve import question_batch
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.alerts import Watcher
from latentplan.training.distributed import whole_weights
from latentplan.training.run_directory import RunDirectory

Gradient = dict[str, torch.Tensor]
"""Gradients by the name of the parameter."""


def gradients(losses: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, Gradient]:
    """The gradient of each loss in the parameters of `module` that are trained; 0 where it has none."""
    named = {name: each for name, each in module.named_parameters() if each.requires_grad}
    found = {}
    for loss_name, loss in losses.items():
        if not loss.requires_grad:
            continue
        parts = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        found[loss_name] = {
            name: torch.zeros_like(weight) if part is None else part
            for (name, weight), part in zip(named.items(), parts, strict=True)
        }
    return found


def add_to(total: Gradient, more: Gradient) -> None:
    """Adds gradients to those in `total`, in place and in float32; those that it lacks are put there."""
    for name, value in more.items():
        if name in total:
            total[name] += value
        else:
            total[name] = value.to(torch.float32, copy=True)


def agreement(
    first: Mapping[str, Gradient], second: Mapping[str, Gradient], parts: Sequence[str]
) -> dict[str, float]:
    """Cosines between the gradients of two halves, from -1 to 1.

    Args:
        first: the gradient of each loss, on one half.
        second: the same on the other half.
        parts: beginnings of parameters' names, such as 'latent_head', for which the sum of the losses'
            gradients is compared as well.

    Returns:
        one value for each loss (over all parameters) and each part; those with a gradient of 0 are left out.
    """
    shared = [name for name in first if name in second]
    pairs = {name: _pairs([first[name]], [second[name]], "") for name in shared}
    for part in parts:
        pairs[part] = _pairs([first[name] for name in shared], [second[name] for name in shared], f"{part}.")
    found = {name: _cosine(each) for name, each in pairs.items()}
    return {name: value for name, value in found.items() if value is not None}


def _pairs(
    first: Sequence[Gradient], second: Sequence[Gradient], beginning: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The sums over losses of both halves, one parameter after another: whole gradients would be copies."""
    for name in first[0] if first else ():
        if name.startswith(beginning):
            yield _sum(each[name] for each in first), _sum(each[name] for each in second)


def _sum(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Of tensors of one shape, in float32."""
    return torch.stack([each.float() for each in tensors]).sum(dim=0)


def _cosine(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float | None:
    """Over all parameters; None where one side is 0."""
    product = one = other = 0.0
    for first, second in pairs:
        product += float((first * second).sum())
        one, other = one + float(first.square().sum()), other + float(second.square().sum())
    return max(-1.0, min(1.0, product / math.sqrt(one * other))) if one and other else None


VARIANCE_PROBLEMS = 64
"""Problems that the variance of rewards is taken apart on."""


def measure_signal(trainer: GRPOTrainer) -> dict[str, float]:
    """All instruments on the first validation problems, by metric; nothing for models without latents."""
    assert trainer.validation is not None
    if not trainer.loaded.reasoner.config.has_latents:
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
        trainer.objective.sampling,
        seed=trainer.args.seed,
        first=first,
    )


def _variance_shares(trainer: GRPOTrainer, validation: ValidationSet) -> dict[str, float]:
    """Each part's share of the reward's variance within a question's samples, on any number of processes."""
    chosen = ValidationSet(validation.problems[:VARIANCE_PROBLEMS], [])
    mine = chosen.part(trainer.args.process_index, trainer.args.world_size)
    problems = [chosen.problems[index] for index in mine]
    sums = dict.fromkeys(("latents", "stops", "answers"), (0.0, 0.0))
    if problems:
        found, count = reward_variance(trainer, problems, mine.start), float(len(problems))
        sums = {name: (value * count, count) for name, value in vars(found).items()}
    shares = VarianceSplit(**means_of(trainer.all_reduce(sums))).shares()
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


def _gradients(trainer: GRPOTrainer, problems: Sequence[Problem], indices: range) -> dict[str, Gradient]:
    """What each kind of action would teach the reasoner about the problems at `indices`, on the CPU."""
    size = trainer.args.per_device_train_batch_size // trainer.args.num_generations
    size = min(size, len(indices))
    total: dict[str, Gradient] = {}
    items = None  # those of the first rollout divide all: an action weighs the same in each
    # Minibatches are means and have to weigh the same: what does not fill one is left out.
    for start in range(0, len(indices) // size * size, size * trainer.minibatches):
        chosen = indices[start : min(start + size * trainer.minibatches, len(indices) // size * size)]
        sampled = trainer.objective.sample(
            trainer.loaded, [problems[index] for index in chosen], chosen, trainer.args.seed
        )
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


PROBED_PROBLEMS = 128
"""Training problems by which the decoder is judged before RL starts."""
LOOKED_AT = 20_000
"""Problems among which wanted ones are looked for; large data lie on disk."""


def scattered(
    problems: Sequence[Problem], count: int, wanted: Callable[[Problem], bool] = lambda problem: True
) -> list[Problem]:
    """`count` of the wanted problems from all over the data: the first ones may be those that were labelled.

    Always the same ones; fewer where `LOOKED_AT` problems hold no more.
    """
    indices = random.Random(0).sample(range(len(problems)), min(len(problems), LOOKED_AT))
    found = (problem for problem in map(problems.__getitem__, indices) if wanted(problem))
    return list(islice(found, count))


@contextmanager
def _asking(trainer: GRPOTrainer) -> Iterator[None]:
    """Lets the policy generate inside; the time does not count as training time."""
    started = time.perf_counter()
    trainer.model.eval()
    with whole_weights(trainer), trainer.compute_loss_context_manager():
        yield
    trainer.leave_out_of_clock(time.perf_counter() - started)


class DecoderProbe(TrainerCallback):
    """How well the decoder reads the latents that RL starts from, on some training problems."""

    def __init__(
        self, run: RunDirectory, trainer: GRPOTrainer, problems: Sequence[Problem], watcher: Watcher
    ):
        self.run, self.trainer, self.watcher = run, trainer, watcher
        self.labelled = scattered(problems, PROBED_PROBLEMS, lambda problem: bool(problem.steps))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks, on all processes, unless training goes on from a checkpoint."""
        loaded = self.trainer.loaded
        if state.global_step or loaded.step_decoder is None or not self.labelled:
            return
        with _asking(self.trainer):
            share = teacher_share(loaded, self.labelled, batch_size=PROBED_PROBLEMS).value
        if share is not None and state.is_world_process_zero:
            self.run.update(starting_reconstruction=share)
            self.watcher.look({"step": 0, "reconstruction": share})


class SignalProbe(TrainerCallback):
    """Where the rewards of the starting policy differ from, and how much of its gradient is signal."""

    def __init__(
        self, run: RunDirectory, trainer: GRPOTrainer, problems: Sequence[Problem], watcher: Watcher
    ):
        self.run, self.trainer, self.problems, self.watcher = run, trainer, problems, watcher

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks, on all processes, unless training goes on from a checkpoint."""
        if state.global_step or not self.trainer.loaded.reasoner.config.has_latents:
            return
        with _asking(self.trainer):
            split = reward_variance(self.trainer, scattered(self.problems, VARIANCE_PROBLEMS))
            chosen = scattered(self.problems, self.trainer.args.signal_problems)
            agreed = gradient_agreement(self.trainer, chosen)
            if self.trainer.drift is not None:
                self.trainer.drift.start(self.trainer.loaded, writes=self.run.writes)
        if state.is_world_process_zero:
            self.run.update(starting_variance=vars(split), starting_agreement=agreed)
            shares = {f"variance/{name}": share for name, share in split.shares().items()}
            self.watcher.look({"step": 0, **shares})


STARTING_LATENTS = "starting_latents.safetensors"


class Drift:
    """The greedy latents of some problems at the start, kept in a file so that a resumed run knows them.

    Args:
        file: in the run directory.
        problems: a few; the same ones whenever the run goes on.
    """

    def __init__(self, file: Path, problems: Sequence[Problem]):
        self.file, self.problems = file, problems

    @torch.no_grad()
    def start(self, model: LoadedModel, writes: bool) -> None:
        """Keeps where the latents are now."""
        trajectories = self._greedy(model)
        chain = score(model.reasoner, trajectories, Sampling.greedy(1)).chain
        if chain.log_variance is None or not writes:
            return
        kept = {
            "latents": trajectories.latents,
            "slot_mask": trajectories.slot_mask,
            "mean": chain.mean,
            "sigma": (0.5 * chain.log_variance).exp(),
        }
        staged = self.file.with_suffix(".part")
        save_file({name: value.float().cpu().contiguous() for name, value in kept.items()}, staged)
        staged.replace(self.file)

    @torch.no_grad()
    def measure(self, model: LoadedModel) -> float | None:
        """√ of the mean, over slots in use and dimensions, of ((μ − μ_start) / σ_start)².

        Both policies read the latents of the start, so that one slot's move is not counted again in those
        after it. None where nothing was kept.
        """
        if not self.file.exists():
            return None
        kept = {name: value.to(model.reasoner.device) for name, value in load_file(self.file).items()}
        now = self._greedy(model, kept["latents"], kept["slot_mask"].long())
        mean = score(model.reasoner, now, Sampling.greedy(1)).chain.mean
        distance = ((mean.float() - kept["mean"]) / kept["sigma"]).square().mean(dim=-1)
        used = kept["slot_mask"]
        return float(((distance * used).sum() / used.sum().clamp(min=1)).sqrt())

    def _greedy(
        self,
        model: LoadedModel,
        latents: torch.Tensor | None = None,
        slot_mask: torch.Tensor | None = None,
    ) -> Trajectories:
        """Greedy trajectories of the problems; with `latents`, these instead of the model's own."""
        ids, mask = question_batch(model, [problem.question for problem in self.problems])
        indices = torch.arange(len(self.problems), device=ids.device)
        found = generate(model.reasoner, ids, mask, indices, seed=0, sampling=Sampling.greedy(1))
        if latents is not None and slot_mask is not None:
            found.latents, found.slot_mask = latents, slot_mask
        return found
