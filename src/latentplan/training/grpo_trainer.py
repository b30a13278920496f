"""RL of latent policies, after ATP-Latent (arXiv:2601.21598): rollouts and minibatches.

What is learned from a rollout is the objective's (`training.objectives`); the step decoder is frozen.

Batch sizes count trajectories, as in TRL: one rollout of per_device_train_batch_size · steps_per_generation
trajectories on each device is split into minibatches of whole groups' shares, each one optimisation step (or
one accumulated part of it), num_iterations times over.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback

from latentplan.modeling import counter_rng
from latentplan.modeling.efficiency.gradient_checkpointing import checkpoint_layers
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rewards import RewardSet
from latentplan.rollout.solve import Solution
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.configs import GRPOConfig
from latentplan.training.distributed import is_sharded, whole_weights
from latentplan.training.latent_gradients import LogProbs
from latentplan.training.objectives import make_objective
from latentplan.training.objectives.objective import RLObjective
from latentplan.training.parameter_groups import check_loss
from latentplan.training.rl_diagnostics import Drift, measure_signal
from latentplan.training.rl_losses import group_std
from latentplan.training.rollout_batch import Minibatch, Sampled, pad_across_ranks, positions, reward, split
from latentplan.training.samplers import Indices, QuestionSampler, as_batch, check_batches
from latentplan.training.trainable_model import LatentModelForTraining
from latentplan.training.trainer import LatentTrainer
from latentplan.training.validation import ValidationSet


class GRPOTrainer(LatentTrainer):
    """Trains a loaded model's latent policy on problems, by the objective that its settings name.

    Args:
        model: reasoner, decoder, tokenizer and processor.
        config: the settings.
        problems: the questions, with the columns that rewards need.
        rewards: the reward.
        validation: held-out problems, where the settings ask for evaluations.

    Raises:
        ValueError: settings do not fit together, the model or the problems, or weights are sharded.
    """

    args: GRPOConfig
    objective: RLObjective

    def __init__(
        self,
        model: LoadedModel,
        config: GRPOConfig,
        problems: Sequence[Problem],
        rewards: RewardSet,
        callbacks: Sequence[TrainerCallback] = (),
        validation: ValidationSet | None = None,
    ):
        self.minibatches, self.questions_per_device = check_batches(config)
        self.loaded, self.problems, self.rewards = model, problems, rewards
        self.objective = make_objective(config, model.reasoner, self.record)
        self.objective.check(model)
        for known in (problems, [] if validation is None else validation.problems):
            self.objective.check_problems(known)
        if model.step_decoder is not None:
            model.step_decoder.requires_grad_(False)
        reference = copy.deepcopy(model.reasoner).requires_grad_(False).eval() if config.beta else None
        self.drift: Drift | None = None
        self._buffer: list[Minibatch] = []
        self._micro_step: int | None = None
        super().__init__(
            model=LatentModelForTraining(
                model.reasoner,
                model.step_decoder,
                objectives={},
                value_head=self.objective.make_value_head(model.reasoner),
            ),
            args=config,
            train_dataset=Indices(len(problems)),
            data_collator=as_batch,
            processing_class=model.tokenizer,
            callbacks=list(callbacks),
            validation=validation,
        )
        if self.objective.needs_full_parameters and is_sharded(self.accelerator):
            raise ValueError(
                f"objective {self.objective.name} needs full parameters on every device: use DDP or ZeRO-2"
            )
        if reference is not None:
            reference.to(self.args.device)  # type: ignore[arg-type]
            if self.args.gradient_checkpointing:
                checkpoint_layers(reference.backbone)
            self.objective.reference = reference

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Makes the optimizer, with the learning rates of the objective's own parts."""
        optimizer = super().create_optimizer(*args, **kwargs)
        self.objective.set_learning_rates(optimizer, self.model)
        return optimizer

    def max_new_tokens(self) -> int:
        """Returns the most answer tokens, as in the rollouts of training."""
        return self.args.max_completion_length

    @property
    def _repeats(self) -> int:
        return self.minibatches * self.args.num_iterations

    def get_train_dataloader(self) -> DataLoader:
        """Makes batches of question indices, one a minibatch."""
        return self._get_dataloader(
            dataset=Indices(len(self.problems)),
            description="Training",
            batch_size=self.questions_per_device,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        micro_steps = self.args.max_steps * self.args.gradient_accumulation_steps
        return QuestionSampler(
            num_problems=len(self.problems),
            per_rollout=self.questions_per_device * self.args.world_size,
            repeats=self._repeats,
            rollouts=-(-micro_steps // self._repeats),
            seed=self.args.seed,
        )

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> Minibatch:  # type: ignore[override]
        # Without dropout: the policy that is scored must be the one that sampled.
        self.model.eval()
        if self._micro_step is None:
            self._micro_step = self.state.global_step * self.args.gradient_accumulation_steps
        rollout, index = divmod(self._micro_step, self._repeats)
        self._micro_step += 1
        if index == 0:
            with self.progress.task("rolls out"):
                minibatches = pad_across_ranks(self, self._roll_out(inputs["indices"].tolist(), rollout))
                items = self.accelerator.reduce(minibatches[0].num_items, reduction="mean")
                self._buffer = [
                    replace(each, num_items=items, old=self._old_log_probs(each)) for each in minibatches
                ]
        return self._buffer[index % self.minibatches]

    def _roll_out(self, indices: list[int], rollout: int) -> list[Minibatch]:
        """Samples, rewards and splits one rollout of questions, given as `QuestionSampler` yields them."""
        sampled = self.draw(indices, rollout)
        self.record(**{"latents/mean_length": sampled.trajectories.slot_mask.sum(dim=1).float().mean()})
        if not self.objective.needs_rewards:
            return self.split(sampled, self.rewards_of(sampled), self.minibatches)
        rewarded = reward(self.rewards, sampled.repeated, sampled.solutions, sampled.trajectories)
        self.record_sums(**self.rewards.metrics(rewarded.table))
        self._write_samples(sampled.repeated, sampled.solutions, rewarded.totals)
        rewards = torch.tensor(rewarded.totals, dtype=torch.float32, device=self.args.device)
        self._record_rollout(sampled.trajectories, rewards)
        return self.split(sampled, rewards, self.minibatches)

    def split(self, sampled: Sampled, rewards: torch.Tensor, parts: int) -> list[Minibatch]:
        """Splits a rollout into minibatches of whole groups, all of one size; nothing is recorded.

        Args:
            sampled: a rollout.
            rewards: `[trajectories]`, NaN where none applies.
            parts: how many minibatches.
        """
        advantages = self._advantages(rewards, sampled.trajectories.finished)
        minibatches = split(sampled, advantages, parts, ~rewards.isnan())
        items = self.objective.num_items(minibatches)
        return [replace(each, num_items=items) for each in minibatches]

    def _old_log_probs(self, batch: Minibatch) -> LogProbs | None:
        """Computes log-probabilities before the first update, by the pass that later ones are compared with.

        Those of the rollout come from other kernels: in bfloat16 a latent's, a sum over all dimensions,
        differs by more than a clipping range. None where all passes over the rollout come before its only
        update: each then is at the policy that sampled.
        """
        if not self.objective.has_ratios or self.args.gradient_accumulation_steps % self._repeats == 0:
            return None

        def compute(system: LatentModelForTraining) -> LogProbs:
            scores, _ = self.objective.scores_of_sampled(system, batch)
            return self.objective.log_probs(system, scores, batch)

        with torch.no_grad(), self.compute_loss_context_manager():
            found: LogProbs = self.model_wrapped(compute=compute)
        self.count_flops_of(batch.scored, self.reasoner_flops.forward)
        return found

    def draw(self, indices: Sequence[int], rollout: int) -> Sampled:
        """Draws the samples of one rollout of training, and counts its operations."""
        problems = [self.problems[index % len(self.problems)] for index in indices]
        seed = int(counter_rng.derive(self.args.seed, counter_rng.Stream.ROLLOUT, rollout))
        with whole_weights(self), self.compute_loss_context_manager():
            sampled = self.objective.sample(self.loaded, problems, indices, seed)
        self.count_flops_of(sampled.trajectories, self.reasoner_flops.forward)
        return sampled

    def count_flops_of(self, trajectories: Trajectories, flops: float) -> None:
        """Adds `flops` for each position of these trajectories, and for what their thinking drafts."""
        reasoner = self.loaded.reasoner
        chains, slots = trajectories.slot_mask.shape
        drafts = chains * reasoner.thinking.draft_columns(slots, reasoner.config.latents_per_step)
        self.count_flops((positions(trajectories) + drafts) * flops)

    def _advantages(self, rewards: torch.Tensor, finished: torch.Tensor) -> torch.Tensor:
        """Returns the advantages of this device's trajectories, which may depend on those of all devices."""
        finished = self.accelerator.gather(finished.float()) > 0  # not every backend gathers booleans
        advantages = self.objective.advantages(self.accelerator.gather(rewards), finished)
        start = self.args.process_index * rewards.shape[0]
        return advantages[start : start + rewards.shape[0]]

    def rewards_of(self, sampled: Sampled) -> torch.Tensor:
        """Computes the rewards of sampled trajectories, `[trajectories]`, and records nothing.

        They are 0 where the objective needs none.
        """
        if not self.objective.needs_rewards:
            return sampled.trajectories.answer_log_probs.new_zeros(len(sampled.trajectories.finished))
        totals = reward(self.rewards, sampled.repeated, sampled.solutions, sampled.trajectories).totals
        return torch.tensor(totals, dtype=torch.float32, device=self.args.device)

    def objective_means(self, indices: range) -> dict[str, float]:
        """Measures what `training.rl_diagnostics` does.

        On the first validation problems, not on those at `indices`: the number of processes is to change
        nothing.
        """
        return measure_signal(self)

    def _write_samples(
        self, problems: Sequence[Problem], solutions: Sequence[Solution], totals: Sequence[float]
    ) -> None:
        step = self.state.global_step
        if not self.args.log_completions or step % self.args.logging_steps:
            return
        shown = list(zip(problems, solutions, totals, strict=True))[: self.args.num_generations]
        rows = [
            {
                "step": step,
                "question": problem.question,
                "reward": None if math.isnan(total) else total,
                **vars(solution),
            }
            for problem, solution, total in shown
        ]
        self.write_samples("rollouts/samples", rows)

    def _record_rollout(self, trajectories: Trajectories, rewards: torch.Tensor) -> None:
        groups = rewards.unflatten(0, (-1, self.args.num_generations))
        scored = ~groups.isnan()
        highest, lowest = (groups.masked_fill(~scored, end) for end in (-torch.inf, torch.inf))
        # A standard deviation of equal rewards is 0 up to rounding; one reward, or none, is not compared.
        equal = highest.amax(dim=1) <= lowest.amin(dim=1)
        stds = group_std(groups.nan_to_num(), scored.float(), eps=0.0)[scored.sum(dim=1) > 1]
        finished = trajectories.finished.float().mean()
        self.record_sums(reward=(rewards.nansum(), scored.sum()), reward_std=(stds.sum(), len(stds)))
        self.record(
            **{
                "frac_reward_zero_std": equal.float().mean(),
                "frac_reward_none": (~scored).float().mean(),
                "completions/mean_length": trajectories.answer_mask.sum(dim=1).float().mean(),
                "completions/clipped_ratio": 1 - finished,
            }
        )

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Computes the objective's loss of a minibatch, and counts what it costs."""
        loss = model(compute=lambda system: self._loss(system, inputs))
        check_loss(loss)
        self.watch_loss(inputs, loss)
        trajectories = inputs.scored
        questions = int(trajectories.question_mask.sum())
        self.count_tokens(questions + int(trajectories.num_tokens.sum()))
        passes_of_reference = 0
        if self.objective.reference is not None:
            passes_of_reference = 2 if self.objective.gradient.through_latents else 1
        self.count_flops_of(trajectories, self.reasoner_flops.training)
        self.count_flops_of(inputs.trajectories, passes_of_reference * self.reasoner_flops.forward)
        return (loss, {}) if return_outputs else loss

    def _loss(self, system: LatentModelForTraining, batch: Minibatch) -> torch.Tensor:
        return torch.stack(list(self.losses(system, batch).values())).sum()

    def losses(self, system: LatentModelForTraining, batch: Minibatch) -> dict[str, torch.Tensor]:
        """Computes the parts of the objective's loss, scalars by name, whose sum is the loss."""
        return self.objective.losses(system, batch, self.state.global_step)
