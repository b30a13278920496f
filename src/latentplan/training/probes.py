"""What is asked of the starting policy when RL begins, for run.json and for warnings.

Only when training starts does a model that is spread over devices lie on them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from latentplan.problems.problem import Problem
from latentplan.rollout.decoding_accuracy import teacher_share
from latentplan.training.instruments import VARIANCE_PROBLEMS, gradient_agreement, reward_variance
from latentplan.training.run_directory import RunDirectory
from latentplan.training.sharding import whole_weights
from latentplan.training.watching import Watcher

if TYPE_CHECKING:
    from latentplan.training.grpo import GRPOTrainer

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
    places = random.Random(0).sample(range(len(problems)), min(len(problems), LOOKED_AT))
    found = (problem for problem in map(problems.__getitem__, places) if wanted(problem))
    return list(islice(found, count))


@contextmanager
def _asking(trainer: GRPOTrainer) -> Iterator[None]:
    """Inside, the policy can be asked; the time is none of the training's."""
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
        if state.global_step or not self.trainer.loaded.reasoner.config.num_slots:
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
