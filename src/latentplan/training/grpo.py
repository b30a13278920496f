"""GRPO (arXiv:2402.03300) on latent policies, after ATP-Latent (arXiv:2601.21598); the decoder is frozen.

Batch sizes count trajectories, as in TRL: one rollout of per_device_train_batch_size · steps_per_generation
trajectories on each device is split into minibatches of whole groups' shares, each one optimisation step (or
one accumulated part of it), num_iterations times over.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import TrainerCallback

from latentplan.methods.system import LatentSystem
from latentplan.modeling import noise
from latentplan.modeling.gaussians import gaussian_kl
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rewards import RewardSet
from latentplan.rollout.engine import generate
from latentplan.rollout.log_probs import Scores, score
from latentplan.rollout.sampling import Sampling
from latentplan.rollout.solve import Solution, question_batch, read_solutions
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.arguments import GRPOConfig
from latentplan.training.estimators import ESTIMATORS, Actions
from latentplan.training.objectives import (
    LOSS_TYPES,
    SCALE_REWARDS,
    clipped_surrogate,
    group_advantages,
    token_kl,
)
from latentplan.training.plan import shuffled
from latentplan.training.trainer import LatentTrainer


@dataclass
class Minibatch:
    """Trajectories with their advantages and what the reference policy says of them (where beta > 0)."""

    trajectories: Trajectories
    advantages: torch.Tensor
    reference: Scores | None


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
    updates = minibatches * config.num_iterations // config.gradient_accumulation_steps
    if config.save_strategy != "no" and config.save_steps % updates:
        raise ValueError(
            f"save_steps={config.save_steps} must be a multiple of the {updates} optimisation steps of "
            "a rollout, so that a resumed run rolls out with the same weights"
        )
    return minibatches, minibatches * config.per_device_train_batch_size // group


class QuestionSampler(Sampler[int]):
    """Shuffled questions; those of a rollout come again for each of its minibatches."""

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
                order += shuffled(self.num_problems, self.seed, passes)
                passes += 1
            questions, order = order[: self.per_rollout], order[self.per_rollout :]
            for _ in range(self.repeats):
                yield from questions


class _Indices(Dataset):
    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def _as_batch(indices: Sequence[int]) -> dict[str, torch.Tensor]:
    return {"indices": torch.tensor(indices)}


class GRPOTrainer(LatentTrainer):
    """Trains a loaded model's latent policy on problems.

    Args:
        model: reasoner, decoder, tokenizer and encoder.
        config: the settings.
        problems: the questions, with the columns that rewards need.
        rewards: the reward.
    """

    args: GRPOConfig

    def __init__(
        self,
        model: LoadedModel,
        config: GRPOConfig,
        problems: Sequence[Problem],
        rewards: RewardSet,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        self.minibatches, self.questions_per_device = check_batches(config)
        self.loaded, self.problems, self.rewards = model, problems, rewards
        self.estimator = _choose("estimator", ESTIMATORS, config.estimator)
        self.loss_type = _choose("loss_type", LOSS_TYPES, config.loss_type)
        self.scale_rewards = _choose("scale_rewards", SCALE_REWARDS, config.scale_rewards)
        scales = {"sum": 1.0, "mean": 1.0 / model.reasoner.config.hidden_size}
        self.latent_scale = _choose("latent_logprob", scales, config.latent_logprob)
        self.sampling = Sampling(config.temperature, config.latent_temperature, config.max_completion_length)
        system = LatentSystem(model.reasoner, model.step_decoder)
        if model.step_decoder is not None:
            model.step_decoder.requires_grad_(False)
        self.reference = copy.deepcopy(model.reasoner).requires_grad_(False).eval() if config.beta else None
        self._buffer: list[Minibatch] = []
        self._micro_step: int | None = None
        super().__init__(
            model=system,
            args=config,
            train_dataset=_Indices(len(problems)),
            data_collator=_as_batch,
            processing_class=model.tokenizer,
            callbacks=list(callbacks),
        )

    @property
    def _repeats(self) -> int:
        return self.minibatches * self.args.num_iterations

    def get_train_dataloader(self) -> DataLoader:
        """Batches of question indices, one a minibatch."""
        return self._get_dataloader(
            dataset=_Indices(len(self.problems)),
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
        rollout, place = divmod(self._micro_step, self._repeats)
        self._micro_step += 1
        if place == 0:
            self._buffer = self._roll_out(inputs["indices"].tolist(), rollout)
        return self._buffer[place % self.minibatches]

    def _roll_out(self, indices: list[int], rollout: int) -> list[Minibatch]:
        """Samples, scores and splits one rollout."""
        problems = [self.problems[index] for index in indices]
        ids, mask = question_batch(self.loaded, [problem.question for problem in problems])
        trajectories = generate(
            self.loaded.reasoner,
            ids,
            mask,
            torch.tensor(indices, device=ids.device),
            seed=int(noise.fold(self.args.seed, rollout)),
            sampling=self.sampling,
            draws=self.args.num_generations // self.args.answers_per_latent,
            answers=self.args.answers_per_latent,
        )
        solutions = read_solutions(self.loaded, trajectories)
        rewards = self._reward(problems, solutions, trajectories).to(ids.device)
        advantages = group_advantages(rewards, self.args.num_generations, self.scale_rewards)
        self._record_rollout(trajectories, rewards)
        size = len(problems) // self.minibatches
        parts = [slice(start, start + size) for start in range(0, len(problems), size)]
        group = self.args.num_generations
        batches = []
        for part in parts:
            selected = trajectories.select(part)
            batches.append(
                Minibatch(
                    selected,
                    advantages[part.start * group : part.stop * group],
                    self._score_reference(selected),
                )
            )
        return batches

    def _reward(
        self, problems: Sequence[Problem], solutions: Sequence[Solution], trajectories: Trajectories
    ) -> torch.Tensor:
        """Total reward of each trajectory, `[trajectories]`; the parts are recorded for the log."""
        group = self.args.num_generations
        repeated = [problem for problem in problems for _ in range(group)]
        plans = [solution.plan for solution in solutions]
        used = trajectories.slot_mask.bool()
        latents = [row[mask] for row, mask in zip(trajectories.latents, used, strict=True)]
        completions = [solution.completion for solution in solutions]
        rewarded = self.rewards(
            prompts=[problem.question for problem in repeated],
            completions=completions,
            question=[problem.question for problem in repeated],
            answer=[problem.answer for problem in repeated],
            modulus=[problem.modulus for problem in repeated],
            decoded_steps=None if plans[0] is None else plans,
            latents=[row for row in latents for _ in range(trajectories.answers)],
            num_latents=[solution.num_latents for solution in solutions],
            num_tokens=[solution.num_tokens for solution in solutions],
            finished=[solution.finished for solution in solutions],
        )
        self.record(**self.rewards.metrics(rewarded.table))
        self._write_samples(repeated, solutions, rewarded.totals)
        return torch.tensor(rewarded.totals, dtype=torch.float32)

    def _write_samples(
        self, problems: Sequence[Problem], solutions: Sequence[Solution], totals: Sequence[float]
    ) -> None:
        step = self.state.global_step
        if not (self.args.log_completions and self.args.should_save and step % self.args.logging_steps == 0):
            return
        shown = list(zip(problems, solutions, totals, strict=True))[: self.args.num_generations]
        with (Path(str(self.args.output_dir)) / "samples.jsonl").open("a") as file:
            for problem, solution, total in shown:
                row = {"step": step, "question": problem.question, "reward": total, **vars(solution)}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _record_rollout(self, trajectories: Trajectories, rewards: torch.Tensor) -> None:
        groups = rewards.unflatten(0, (-1, self.args.num_generations))
        finished = trajectories.finished.float().mean()
        self.record(
            **{
                "reward": rewards.mean(),
                "reward_std": groups.std(dim=1).mean(),
                "frac_reward_zero_std": (groups.std(dim=1) == 0).float().mean(),
                "completions/mean_length": trajectories.answer_mask.sum(dim=1).float().mean(),
                "completions/clipped_ratio": 1 - finished,
                "latents/mean_length": trajectories.slot_mask.sum(dim=1).float().mean(),
                "num_tokens": trajectories.num_tokens.sum(),
            }
        )

    @torch.no_grad()
    def _score_reference(self, trajectories: Trajectories) -> Scores | None:
        return None if self.reference is None else score(self.reference, trajectories, self.sampling)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The clipped surrogate of each kind of action, summed, and `beta` times the KL to the start."""
        loss = model(compute=lambda system: self._loss(system, inputs))
        return (loss, {}) if return_outputs else loss

    def _loss(self, system: LatentSystem, batch: Minibatch) -> torch.Tensor:
        trajectories = batch.trajectories
        scores = self.estimator.scores(system.reasoner, trajectories, self.sampling)
        losses = [
            self._surrogate(actions, batch)
            for actions in self.estimator.actions(scores, trajectories, self.latent_scale)
        ]
        if batch.reference is not None:
            losses.append(self.args.beta * self._kl(scores, batch.reference, trajectories))
        self._record_scores(scores, trajectories)
        return torch.stack(losses).sum()

    def _surrogate(self, actions: Actions, batch: Minibatch) -> torch.Tensor:
        rows = actions.mask.shape[0]
        advantages = batch.advantages.unflatten(0, (rows, -1)).mean(dim=1)
        mask = actions.mask
        if self.args.mask_truncated_completions:
            mask = mask * batch.trajectories.finished.unflatten(0, (rows, -1)).any(dim=1, keepdim=True)
        surrogate = clipped_surrogate(
            actions.log_probs,
            actions.old_log_probs,
            advantages,
            mask,
            self.args.epsilon,
            self.args.epsilon_high,
            self.args.max_log_ratio,
        )
        clipped = surrogate.clipped.sum() / mask.sum().clamp(min=1)
        self.record(**{"clip_ratio/region_mean": clipped, f"clip_ratio/{actions.name}": clipped})
        return self.loss_type(surrogate.loss, mask, max_length=mask.shape[1])

    def _kl(self, scores: Scores, reference: Scores, trajectories: Trajectories) -> torch.Tensor:
        """Answer tokens by TRL's estimator, Gaussian latents in closed form (summed over dimensions)."""
        kl = self.loss_type(
            token_kl(scores.answers, reference.answers),
            trajectories.answer_mask,
            max_length=trajectories.answer_mask.shape[1],
        )
        if scores.chain.log_variance is not None and reference.chain.log_variance is not None:
            latent_kl = gaussian_kl(
                scores.chain.mean,
                scores.chain.log_variance,
                reference.chain.mean,
                reference.chain.log_variance,
            ).sum(dim=-1)
            kl = kl + self.loss_type(
                latent_kl, trajectories.slot_mask, max_length=trajectories.slot_mask.shape[1]
            )
        self.record(kl=kl)
        return kl

    def _record_scores(self, scores: Scores, trajectories: Trajectories) -> None:
        mask = trajectories.answer_mask
        self.record(entropy=scores.entropy.sum() / mask.sum())
        if scores.chain.log_variance is not None:
            used = trajectories.slot_mask
            sigma = (0.5 * scores.chain.log_variance.detach()).exp().mean(dim=-1)
            self.record(**{"latents/sigma": (sigma * used).sum() / used.sum().clamp(min=1)})


def _choose(setting: str, table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise ValueError(f"{setting} must be one of {sorted(table)}, got {name!r}")
    return table[name]
