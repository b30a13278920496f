"""GRPO (arXiv:2402.03300) on latent policies, after ATP-Latent (arXiv:2601.21598); the decoder is frozen.

Batch sizes count trajectories, as in TRL: one rollout of per_device_train_batch_size · steps_per_generation
trajectories on each device is split into minibatches of whole groups' shares, each one optimisation step (or
one accumulated part of it), num_iterations times over.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback

from latentplan.methods.system import LatentSystem
from latentplan.modeling import noise
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rewards import RewardSet
from latentplan.rewards.combine import Rewarded
from latentplan.rollout.engine import generate
from latentplan.rollout.log_probs import Scores, score
from latentplan.rollout.plan_tokens import MAX_STEP_TOKENS, PlanTokens, sample_plans, score_plans
from latentplan.rollout.sampling import Sampling
from latentplan.rollout.solve import Solution, question_batch, read_solutions
from latentplan.rollout.trajectories import Trajectories
from latentplan.rollout.variance import VarianceSplit, measure_variance
from latentplan.training.advantages import (
    BASELINES,
    SCALE_REWARDS,
    first_action_of_the_best,
    group_advantages,
    only_groups_with_contrast,
)
from latentplan.training.agreement import Gradient, add_to, agreement, gradients
from latentplan.training.arguments import GRPOConfig
from latentplan.training.divergence import latent_divergence, stop_divergence
from latentplan.training.drift import Drift
from latentplan.training.estimators import ESTIMATORS, Actions
from latentplan.training.learning_rates import PARTS, check_factors, give_factors
from latentplan.training.objectives import LOSS_TYPES, clipped_surrogate, token_kl
from latentplan.training.question_order import Indices, QuestionSampler, as_batch, check_batches
from latentplan.training.sharding import is_sharded, same_everywhere, whole_weights
from latentplan.training.spread import latent_spread
from latentplan.training.trainer import LatentTrainer
from latentplan.training.validation import ValidationSet, means_of

VARIANCE_PROBLEMS = 64
"""Problems that the variance of rewards is taken apart on."""
AGREEMENT_PROBLEMS = 256
"""Problems, half against half, on which the signal in the gradient is measured."""


@dataclass
class Minibatch:
    """Trajectories, their advantages `[trajectories]`, and the plans of the chains where these are drawn."""

    trajectories: Trajectories
    advantages: torch.Tensor
    plans: PlanTokens | None = None


@dataclass(frozen=True)
class Sampled:
    """A rollout: the problems, a group of trajectories of each, their texts, and drawn plans if any."""

    problems: Sequence[Problem]
    trajectories: Trajectories
    solutions: Sequence[Solution]
    plans: PlanTokens | None = None

    @property
    def repeated(self) -> list[Problem]:
        """The problem of each trajectory."""
        group = len(self.solutions) // len(self.problems)
        return [problem for problem in self.problems for _ in range(group)]


class GRPOTrainer(LatentTrainer):
    """Trains a loaded model's latent policy on problems.

    Args:
        model: reasoner, decoder, tokenizer and encoder.
        config: the settings.
        problems: the questions, with the columns that rewards need.
        rewards: the reward.
        validation: held-out problems, where the settings ask for evaluations.
    """

    args: GRPOConfig

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
        self.estimator = _choose("estimator", ESTIMATORS, config.estimator)
        self.loss_type = _choose("loss_type", LOSS_TYPES, config.loss_type)
        self.scale_rewards = _choose("scale_rewards", SCALE_REWARDS, config.scale_rewards)
        self.baseline = _choose("baseline", BASELINES, config.baseline)
        scales = {"sum": 1.0, "mean": 1.0 / model.reasoner.config.hidden_size}
        self.latent_scale = _choose("latent_logprob", scales, config.latent_logprob)
        if config.plan_temperature and (
            model.step_decoder is None or config.estimator != "pathwise" or config.plan_temperature < 0
        ):
            raise ValueError(
                f"plan_temperature={config.plan_temperature} teaches latents through the step decoder: it "
                "needs a number above 0, estimator pathwise, and a model with a step decoder"
            )
        self.factors = dict(config.learning_rate_factors or {})
        check_factors(model.reasoner, self.factors)
        self.sampling = Sampling(config.temperature, config.latent_temperature, config.max_completion_length)
        system = self.build_system(model)
        if model.step_decoder is not None:
            model.step_decoder.requires_grad_(False)
        self.reference = copy.deepcopy(model.reasoner).requires_grad_(False).eval() if config.beta else None
        self.drift: Drift | None = None
        self._buffer: list[Minibatch] = []
        self._micro_step: int | None = None
        super().__init__(
            model=system,
            args=config,
            train_dataset=Indices(len(problems)),
            data_collator=as_batch,
            processing_class=model.tokenizer,
            callbacks=list(callbacks),
            validation=validation,
        )
        if self.reference is not None:
            self.reference.to(self.args.device)  # type: ignore[arg-type]

    def build_system(self, model: LoadedModel) -> LatentSystem:
        """What is trained."""
        return LatentSystem(model.reasoner, model.step_decoder, objectives={})

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """With `learning_rate_factors`, groups of their own for the parts that they name."""
        optimizer = super().create_optimizer(*args, **kwargs)
        give_factors(optimizer, self.model.reasoner, self.factors, self.args.learning_rate)
        return optimizer

    def max_new_tokens(self) -> int:
        """As in the rollouts of training."""
        return self.args.max_completion_length

    @property
    def _repeats(self) -> int:
        return self.minibatches * self.args.num_iterations

    def get_train_dataloader(self) -> DataLoader:
        """Batches of question indices, one a minibatch."""
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
        rollout, place = divmod(self._micro_step, self._repeats)
        self._micro_step += 1
        if place == 0:
            with self.progress.task("rolls out"):
                self._buffer = self._alike(self._roll_out(inputs["indices"].tolist(), rollout))
        return self._buffer[place % self.minibatches]

    def _roll_out(self, places: list[int], rollout: int) -> list[Minibatch]:
        """Samples, scores and splits one rollout of questions, given as `QuestionSampler` yields them."""
        problems = [self.problems[place % len(self.problems)] for place in places]
        with whole_weights(self), self.compute_loss_context_manager():
            sampled = self.sample(problems, places, int(noise.fold(self.args.seed, rollout)))
        self.count_flops_of(sampled.trajectories, self.reasoner_flops.forward)
        rewarded = self.rewarded(sampled.repeated, sampled.solutions, sampled.trajectories)
        self.record(**self.rewards.metrics(rewarded.table))
        self._write_samples(sampled.repeated, sampled.solutions, rewarded.totals)
        rewards = torch.tensor(rewarded.totals, dtype=torch.float32, device=self.args.device)
        self._record_rollout(sampled.trajectories, rewards)
        return self.split(sampled, self._advantages(rewards, sampled.trajectories.finished), self.minibatches)

    def sample(self, problems: Sequence[Problem], places: Sequence[int], seed: int) -> Sampled:
        """A group of trajectories of each problem; their noise follows from `seed` and the `places`."""
        ids, mask = question_batch(self.loaded, [problem.question for problem in problems])
        trajectories = generate(
            self.loaded.reasoner,
            ids,
            mask,
            torch.tensor(places, device=ids.device),
            seed=seed,
            sampling=self.sampling,
            draws=self.args.num_generations // self.args.answers_per_latent,
            answers=self.args.answers_per_latent,
        )
        return Sampled(problems, trajectories, *self._read(trajectories))

    def _read(self, trajectories: Trajectories) -> tuple[list[Solution], PlanTokens | None]:
        """The trajectories as text; with `plan_temperature`, plans are drawn and their tokens kept."""
        if not self.args.plan_temperature:
            return read_solutions(self.loaded, trajectories), None
        assert self.loaded.step_decoder is not None
        plans, tokens = sample_plans(
            self.loaded.step_decoder, self.loaded.tokenizer, trajectories, self.args.plan_temperature
        )
        solutions = read_solutions(self.loaded, trajectories, with_plans=False)
        by_chain = [plan for plan in plans for _ in range(trajectories.answers)]
        return [
            replace(solution, plan=plan) for solution, plan in zip(solutions, by_chain, strict=True)
        ], tokens

    def split(self, sampled: Sampled, advantages: torch.Tensor, parts: int) -> list[Minibatch]:
        """Minibatches of whole groups, all of one size."""
        trajectories, plans = sampled.trajectories, sampled.plans
        questions, draws = trajectories.question_ids.shape[0], trajectories.draws
        size, group = questions // parts, advantages.shape[0] // questions
        return [
            Minibatch(
                trajectories.select(slice(start, start + size)),
                advantages[start * group : (start + size) * group],
                plans and plans.select(slice(start * draws, (start + size) * draws)),
            )
            for start in range(0, questions, size)
        ]

    def count_flops_of(self, trajectories: Trajectories, flops: float) -> None:
        """Adds `flops` for each position of these trajectories."""
        self.count_flops(_tokens_read(trajectories) * flops)

    def _alike(self, minibatches: list[Minibatch]) -> list[Minibatch]:
        """The minibatches, of one size on all devices of a sharded run: all then take equally many passes."""
        alike = []
        for minibatch in minibatches:
            trajectories = minibatch.trajectories
            sizes = trajectories.slot_mask.shape[1], trajectories.answer_mask.shape[1]
            largest = same_everywhere(self, *sizes)
            if largest != sizes:
                trajectories = trajectories.padded(*largest)
            alike.append(replace(minibatch, trajectories=trajectories))
        return alike

    def _advantages(self, rewards: torch.Tensor, finished: torch.Tensor) -> torch.Tensor:
        """Advantages of this device's trajectories; a deviation over the batch is one over all devices."""
        valid = finished if self.args.mask_invalid_samples else torch.ones_like(finished)
        everywhere = self.accelerator.gather(rewards)
        advantages = group_advantages(
            everywhere,
            self.args.num_generations,
            self.scale_rewards,
            baseline=self.baseline,
            counted=self.accelerator.gather(valid.float()),
        )
        if self.args.filter_groups:
            advantages = only_groups_with_contrast(advantages, self.args.num_generations)
        start = self.args.process_index * rewards.shape[0]
        return advantages[start : start + rewards.shape[0]]

    def learnable(self, sampled: Sampled) -> torch.Tensor:
        """The advantages of sampled trajectories, nothing being recorded."""
        totals = self.rewarded(sampled.repeated, sampled.solutions, sampled.trajectories).totals
        rewards = torch.tensor(totals, dtype=torch.float32, device=self.args.device)
        return self._advantages(rewards, sampled.trajectories.finished)

    def rewarded(
        self, problems: Sequence[Problem], solutions: Sequence[Solution], trajectories: Trajectories
    ) -> Rewarded:
        """What the rewards say of trajectories, given the problem of each."""
        plans = [solution.plan for solution in solutions]
        used = trajectories.slot_mask.bool()
        latents = [row[mask] for row, mask in zip(trajectories.latents, used, strict=True)]
        return self.rewards(
            prompts=[problem.question for problem in problems],
            completions=[solution.completion for solution in solutions],
            question=[problem.question for problem in problems],
            answer=[problem.answer for problem in problems],
            modulus=[problem.modulus for problem in problems],
            decoded_steps=None if plans[0] is None else plans,
            latents=[row for row in latents for _ in range(trajectories.answers)],
            num_latents=[solution.num_latents for solution in solutions],
            num_tokens=[solution.num_tokens for solution in solutions],
            finished=[solution.finished for solution in solutions],
        )

    def variance_split(self, problems: Sequence[Problem], first: int = 0) -> VarianceSplit:
        """Where the rewards of samples of these problems differ from; `first` as in `measure_variance`."""
        return measure_variance(
            self.loaded,
            problems,
            lambda *samples: self.rewarded(*samples).totals,
            self.sampling,
            seed=self.args.seed,
            first=first,
        )

    def agreement(self, problems: Sequence[Problem]) -> dict[str, float]:
        """How much two halves of these problems' samples agree on where to move the policy: cosines.

        For each kind of action (`latents`, `answers`, `plans`) over all parameters, and for each part
        (`backbone`, `latent_head`, `stop_head`) over all kinds. A minibatch of training at a time; nothing is
        trained, recorded or counted. Empty where there are fewer problems than two minibatches, and where
        weights are spread over devices.
        """
        at_once = max(1, self.args.per_device_train_batch_size // self.args.num_generations)
        parts = min(len(problems), AGREEMENT_PROBLEMS) // at_once // 2 * 2
        if not parts or is_sharded(self.accelerator):
            return {}
        chosen = problems[: parts * at_once]
        with self.unrecorded(), torch.no_grad():
            sampled = self.sample(chosen, range(len(chosen)), self.args.seed)
            minibatches = self.split(sampled, self.learnable(sampled), parts)
            one, other = (self._gradients(minibatches[half::2]) for half in (0, 1))
        return agreement(one, other, PARTS)

    def _gradients(self, minibatches: Sequence[Minibatch]) -> dict[str, Gradient]:
        """What each kind of action would teach the reasoner, summed over minibatches."""
        total: dict[str, Gradient] = {}
        for minibatch in minibatches:
            with torch.enable_grad():
                losses = self.losses(self.model, minibatch)
                losses.pop("kl", None)
                found = gradients(losses, self.model.reasoner)
            for kind, gradient in found.items():
                add_to(total.setdefault(kind, {}), gradient)
        return total

    def objective_means(self, places: range) -> dict[str, float]:
        """Where rewards differ from, how much of the gradient is signal, and how far the latents have moved.

        On the first validation problems, not on those at `places`: the number of processes is to change
        nothing.
        """
        assert self.validation is not None
        if not self.loaded.reasoner.config.num_slots:
            return {}
        agreed = self.agreement(self.validation.problems)
        moved = None if self.drift is None else self.drift.measure(self.loaded)
        return {
            **self._variance_shares(),
            **{f"agreement/{name}": value for name, value in agreed.items()},
            **({} if moved is None else {"latents/drift": moved}),
        }

    def _variance_shares(self) -> dict[str, float]:
        """Each part's share of the reward's variance within a question's samples."""
        assert self.validation is not None
        chosen = ValidationSet(self.validation.problems[:VARIANCE_PROBLEMS], [])
        mine = chosen.part(self.args.process_index, self.args.world_size)
        problems = [chosen.problems[place] for place in mine]
        sums = dict.fromkeys(("latents", "stops", "answers"), (0.0, 0.0))
        if problems:
            split, count = self.variance_split(problems, mine.start), float(len(problems))
            sums = {name: (value * count, count) for name, value in vars(split).items()}
        split = VarianceSplit(**means_of(self._everywhere(sums)))
        return {f"variance/{name}": share for name, share in split.shares().items()}

    def _write_samples(
        self, problems: Sequence[Problem], solutions: Sequence[Solution], totals: Sequence[float]
    ) -> None:
        step = self.state.global_step
        if not self.args.log_completions or step % self.args.logging_steps:
            return
        shown = list(zip(problems, solutions, totals, strict=True))[: self.args.num_generations]
        rows = [
            {"step": step, "question": problem.question, "reward": total, **vars(solution)}
            for problem, solution, total in shown
        ]
        self.write_samples("rollouts/samples", rows)

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
            }
        )

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The clipped surrogate of each kind of action, summed, and `beta` times the KL to the start."""
        loss = model(compute=lambda system: self._loss(system, inputs))
        self.watch_loss(inputs, loss)
        trajectories = inputs.trajectories
        questions = int(trajectories.question_mask.sum())
        self.count_tokens(questions + int(trajectories.num_tokens.sum()))
        passes = self.reasoner_flops.training + (self.reasoner_flops.forward if self.reference else 0.0)
        self.count_flops_of(trajectories, passes)
        return (loss, {}) if return_outputs else loss

    def _loss(self, system: LatentSystem, batch: Minibatch) -> torch.Tensor:
        return torch.stack(list(self.losses(system, batch).values())).sum()

    def losses(self, system: LatentSystem, batch: Minibatch) -> dict[str, torch.Tensor]:
        """What each kind of action teaches, and `kl` with `beta`: scalars, whose sum is the loss."""
        trajectories = batch.trajectories
        scores = self.estimator.scores(system.reasoner, trajectories, self.sampling)
        actions = self.estimator.actions(scores, trajectories, self.latent_scale)
        if batch.plans is not None:
            actions.append(self._plan_actions(system, scores, batch.plans))
        losses = {each.name: self._surrogate(each, batch) for each in actions}
        if self.reference is not None:
            losses["kl"] = self.args.beta * self._kl(scores, trajectories)
        self._record_scores(scores, trajectories)
        return losses

    def _plan_actions(self, system: LatentSystem, scores: Scores, plans: PlanTokens) -> Actions:
        """The tokens of drawn plans, which the latents make likelier or less likely."""
        assert system.step_decoder is not None
        temperature = self.args.plan_temperature
        log_probs = score_plans(system.step_decoder, scores.chain.latents, plans, temperature)
        return Actions("plans", log_probs.flatten(1), plans.log_probs.flatten(1), plans.mask.flatten(1))

    def _surrogate(self, actions: Actions, batch: Minibatch) -> torch.Tensor:
        rows = actions.mask.shape[0]
        counted = torch.ones_like(batch.advantages)
        if self.args.mask_truncated_completions:
            counted = batch.trajectories.finished.to(counted.dtype)
        counted = counted.unflatten(0, (rows, -1))
        advantages = (batch.advantages.unflatten(0, (rows, -1)) * counted).sum(dim=1)
        advantages = advantages / counted.sum(dim=1).clamp(min=1)
        if self.args.first_slot_of_best and actions.name == "latents":
            advantages = first_action_of_the_best(
                advantages, actions.old_log_probs, actions.mask, batch.trajectories.draws
            )
        mask = actions.mask * (counted.sum(dim=1, keepdim=True) > 0)
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
        beyond = (actions.log_probs - actions.old_log_probs).detach().abs() > self.args.max_log_ratio
        clamped = (beyond & mask.bool()).sum() / mask.sum().clamp(min=1)
        self.record(**{"clip_ratio/region_mean": clipped, f"clip_ratio/{actions.name}": clipped})
        self.record(**{"clip_ratio/clamped": clamped})
        return self._average(surrogate.loss, mask, actions.name)

    def _average(self, loss: torch.Tensor, mask: torch.Tensor, name: str) -> torch.Tensor:
        """`loss_type`, with the most actions of a kind that any trajectory can have as its constant."""
        slots, size = self.loaded.reasoner.config.num_slots, self.loaded.reasoner.config.latents_per_step
        longest = {"latents": slots + 1, "plans": slots // size * MAX_STEP_TOKENS}
        return self.loss_type(loss, mask, max_length=longest.get(name, self.args.max_completion_length))

    def _kl(self, scores: Scores, trajectories: Trajectories) -> torch.Tensor:
        """KL to the starting policy: answer tokens by TRL's estimator, latents and stops in closed form.

        The starting policy is asked about the latents that the policy has now, which under `pathwise` change
        with it.
        """
        assert self.reference is not None
        with torch.no_grad():
            now = replace(trajectories, latents=scores.chain.latents.detach())
            reference = score(self.reference, now, self.sampling)
        kl = self._average(token_kl(scores.answers, reference.answers), trajectories.answer_mask, "answers")
        if scores.chain.log_variance is not None:
            latent_kl = latent_divergence(scores.chain, reference.chain, self.sampling.latent_temperature)
            kl = kl + self._average(latent_kl, trajectories.slot_mask, "latents")
        if scores.stop_logits is not None and reference.stop_logits is not None:
            stop_kl = stop_divergence(scores.stop_logits, reference.stop_logits, self.sampling.temperature)
            kl = kl + self._average(stop_kl, trajectories.stop_mask, "latents")
        self.record(kl=kl)
        return kl

    def _record_scores(self, scores: Scores, trajectories: Trajectories) -> None:
        mask = trajectories.answer_mask
        if trajectories.slot_mask.shape[1]:
            spread = latent_spread(scores.chain.mean, trajectories.slot_mask, trajectories.draws)
            self.record(**{"latents/spread": spread})
        self.record(entropy=scores.entropy.sum() / mask.sum())
        if scores.chain.log_variance is not None:
            used = trajectories.slot_mask
            sigma = (0.5 * scores.chain.log_variance.detach()).exp().mean(dim=-1)
            self.record(**{"latents/sigma": (sigma * used).sum() / used.sum().clamp(min=1)})


def _tokens_read(trajectories: Trajectories) -> int:
    """Positions that the policy reads: questions and chains of latents once, however many share them."""
    masks = (trajectories.question_mask, trajectories.slot_mask, trajectories.answer_mask)
    return sum(int(mask.sum()) for mask in masks)


def _choose(setting: str, table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise ValueError(f"{setting} must be one of {sorted(table)}, got {name!r}")
    return table[name]
