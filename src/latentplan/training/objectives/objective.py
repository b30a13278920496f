"""What an RL objective is: its settings, what it needs of a rollout, its advantages and its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentplan.common.plugin_settings import NoSettings
from latentplan.common.plugins import settings_from
from latentplan.modeling.latent_heads import ValueHead
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import Scores, score
from latentplan.rollout.plan_decoding import MAX_STEP_TOKENS, score_plans
from latentplan.rollout.solve import question_batch
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.configs import GRPOConfig, choose, plug_in
from latentplan.training.latent_gradients import Actions, LogProbs, get_latent_gradient
from latentplan.training.rl_losses import LOSS_TYPES, between_question_std, latent_kl, stop_kl, token_kl
from latentplan.training.rollout_batch import KnownAnswers, Minibatch, Sampled, apart, read_with_plans
from latentplan.training.trainable_model import LatentModelForTraining

ADVANTAGE_SETTINGS = ("baseline", "scale_rewards", "mask_invalid_samples", "filter_groups")
"""Settings of `GRPOConfig` about advantages, which an objective with advantages of its own ignores."""
RATIO_SETTINGS = ("epsilon", "epsilon_high", "max_log_ratio")
"""Settings of `GRPOConfig` about ratios, which an objective without any ignores."""


class RLObjective:
    """What a minibatch of trajectories teaches the policy; a subclass says how.

    A subclass needs `advantages` and `losses`. What is here beside them is shared: scores of trajectories,
    the valid actions, their average, and the KL divergence to the starting policy.

    Attributes:
        name: what `objective` calls it.
        settings_class: the dataclass of the settings that are its own.
        latent_gradients: the values of `latent_gradient` that it supports, of which the first is its default;
            empty: all, by default score_function.
        ignored_settings: settings of `GRPOConfig` that it does not read: a run that sets one is refused.
        needs_latents: whether the model must have latents.
        needs_rewards: whether sampled trajectories are rewarded.
        needs_full_parameters: whether every device must hold all parameters.
        compares_trajectories: whether a question needs more than one trajectory.

    Args:
        config: the settings of the run.
        reasoner: the policy, whose sizes are read.
        record: called with metrics by name.

    Raises:
        ValueError: a setting does not exist, has a value that there is not, or a value of another type.
    """

    name: ClassVar[str]
    settings_class: ClassVar[type] = NoSettings
    latent_gradients: ClassVar[tuple[str, ...]] = ()
    ignored_settings: ClassVar[tuple[str, ...]] = ()
    needs_latents: ClassVar[bool] = False
    needs_rewards: ClassVar[bool] = True
    needs_full_parameters: ClassVar[bool] = False
    compares_trajectories: ClassVar[bool] = True

    def __init__(
        self,
        config: GRPOConfig,
        reasoner: LatentReasoner,
        record: Callable[..., None] = lambda **metrics: None,
    ):
        self.config, self.shape, self.record = config, reasoner.config, record
        self.settings: Any = settings_from(
            self.settings_class, config.objective_settings or {}, f"objective {self.name}"
        )
        self.gradient = get_latent_gradient(self.latent_gradient_of(config))
        self.loss_type = plug_in("loss_type", LOSS_TYPES, config.loss_type)
        scales = {"sum": 1.0, "mean": 1.0 / self.shape.hidden_size}
        self.latent_scale = choose("latent_logprob", scales, config.latent_logprob)
        self.sampling = Sampling(config.temperature, config.latent_temperature, config.max_completion_length)
        self.reference: LatentReasoner | None = None  # the starting policy, set by the trainer with `beta`

    @classmethod
    def latent_gradient_of(cls, config: GRPOConfig) -> str:
        """Returns the name of the latent gradient estimator: the run's, or the objective's own default."""
        return config.latent_gradient or (cls.latent_gradients or ("score_function",))[0]

    # What a subclass says.

    @property
    def has_ratios(self) -> bool:
        """Whether the loss compares the policy with the one that sampled."""
        return True

    @property
    def adds_reference_answers(self) -> bool:
        """Whether the data's answer is scored beside the sampled answers of each chain."""
        return False

    def advantages(self, rewards: Tensor, finished: Tensor) -> Tensor:
        """Computes the advantages of a rollout.

        Args:
            rewards: `[trajectories]` of all devices, those of a question next to each other; NaN where no
                reward applies.
            finished: `[trajectories]`, whether the answer ended.

        Returns:
            `[trajectories]`.
        """
        raise NotImplementedError

    def losses(self, system: LatentModelForTraining, batch: Minibatch, step: int) -> dict[str, Tensor]:
        """Computes the parts of the loss, scalars by name, whose sum is the loss.

        Args:
            system: the policy, with the frozen step decoder and the value head where there is one.
            batch: trajectories with their advantages.
            step: optimisation steps that have been taken.
        """
        raise NotImplementedError

    def check(self, model: LoadedModel) -> None:
        """Raises ValueError for settings that mean nothing together or for this model."""
        self._check_settings()
        config, shape = self.config, model.reasoner.config
        if self.needs_latents and not shape.has_latents:
            raise ValueError(
                f"objective {self.name} needs latents, and {shape.method} has none: start from a latent model"
            )
        if model.reasoner.input_rule.draws:
            raise ValueError(
                f"input_rule {shape.input_rule} draws what is read after each token, and these draws would "
                "be actions that RL leaves out: reinforce the model with another input_rule"
            )
        has_plans = model.step_decoder is not None and self.gradient.through_latents
        if config.plan_temperature < 0 or (config.plan_temperature and not has_plans):
            raise ValueError(
                f"plan_temperature={config.plan_temperature} teaches latents through the step decoder: it "
                "needs a number above 0, latent_gradient pathwise, and a model with a step decoder"
            )

    def check_problems(self, problems: Sequence[Problem]) -> None:
        """Raises ValueError for problems that the objective cannot learn from."""

    def make_value_head(self, reasoner: LatentReasoner) -> ValueHead | None:
        """Returns a value head that is trained beside the policy, or None."""
        return None

    def set_learning_rates(self, optimizer: torch.optim.Optimizer, system: LatentModelForTraining) -> None:
        """Changes learning rates of the optimizer that has just been made."""

    def generate(
        self,
        model: LoadedModel,
        problems: Sequence[Problem],
        indices: Sequence[int],
        seed: int,
        sampling: Sampling,
        answers: int = 1,
    ) -> Trajectories:
        """Generates `num_generations` trajectories of each problem, `answers` for each chain of latents."""
        ids, mask = question_batch(model, [problem.question for problem in problems])
        return generate(
            model.reasoner,
            ids,
            mask,
            torch.tensor(indices, device=ids.device),
            seed=seed,
            sampling=sampling,
            draws=self.config.num_generations // answers,
            answers=answers,
        )

    def sample(
        self, model: LoadedModel, problems: Sequence[Problem], indices: Sequence[int], seed: int
    ) -> Sampled:
        """Draws a group of trajectories of each problem; their noise follows from `seed` and `indices`."""
        trajectories = self.generate(
            model, problems, indices, seed, self.sampling, self.config.answers_per_latent
        )
        read = read_with_plans(model, trajectories, self.config.plan_temperature)
        known = KnownAnswers.of_problems(model, problems) if self.adds_reference_answers else None
        return Sampled(problems, trajectories, *read, known=known)

    # What all share.

    def _check_settings(self) -> None:
        config, gradient = self.config, self.latent_gradient_of(self.config)
        if self.latent_gradients and gradient not in self.latent_gradients:
            raise ValueError(
                f"objective {self.name} needs latent_gradient {' or '.join(self.latent_gradients)}, "
                f"got {gradient!r}"
            )
        if self.compares_trajectories and config.num_generations < 2:
            raise ValueError(
                f"num_generations must be 2 or more, got {config.num_generations}: a trajectory is compared "
                "with others of its question"
            )
        defaults = {each.name: each.default for each in fields(config)}
        ignored = {f"latent_gradient {gradient}": self.gradient.ignored_settings}
        for owner, names in {**ignored, f"objective {self.name}": self.ignored_settings}.items():
            for name in names:
                if getattr(config, name) != defaults[name]:
                    raise ValueError(
                        f"{owner} does not read {name}, which is {getattr(config, name)!r}: leave it at "
                        f"{defaults[name]!r}"
                    )
        if config.use_bias_correction_kl and not config.beta:
            raise ValueError(
                "use_bias_correction_kl corrects the KL divergence to the starting policy, which beta 0 "
                "leaves out: set beta, or use_bias_correction_kl to false"
            )

    def scores(self, system: LatentModelForTraining, trajectories: Trajectories) -> Scores:
        """Computes the log-probabilities of trajectories, as the latent gradient estimator does."""
        return self.gradient.scores(system.reasoner, trajectories, self.sampling)

    def scores_of_sampled(
        self, system: LatentModelForTraining, batch: Minibatch
    ) -> tuple[Scores, Tensor | None]:
        """Scores what was sampled, and in the same pass the reference answers.

        Returns:
            the scores, and the log-likelihoods of reference answers, `[chains]`; None where there are none.
        """
        scores = self.scores(system, batch.scored)
        return (scores, None) if batch.known is None else apart(scores, sampled=batch.trajectories)

    def log_probs(self, system: LatentModelForTraining, scores: Scores, batch: Minibatch) -> LogProbs:
        """Collects those of the actions of a minibatch; plans are scored given the latents in `scores`."""
        plans = None
        if batch.plans is not None:
            assert system.step_decoder is not None
            temperature = self.config.plan_temperature
            plans = score_plans(system.step_decoder, scores.chain.latents, batch.plans, temperature)
        return LogProbs(scores.latents, scores.stops, scores.answers, plans)

    def actions(self, new: LogProbs, old: LogProbs, batch: Minibatch) -> list[Actions]:
        """Lists the actions by kind: latents with their stops, answers, and plans where they are drawn."""
        actions = self.gradient.actions(new, old, batch.trajectories, self.latent_scale)
        if batch.plans is not None and new.plans is not None and old.plans is not None:
            mask = batch.plans.mask.flatten(1)
            actions.append(Actions("plans", new.plans.flatten(1), old.plans.flatten(1), mask))
        return actions

    def valid_trajectories(self, trajectories: Trajectories) -> Tensor:
        """Tells which trajectories' answers the loss is of, `[trajectories]`."""
        if self.config.mask_truncated_completions:
            return trajectories.finished
        return torch.ones_like(trajectories.finished)

    def masks(self, batch: Minibatch) -> dict[str, Tensor]:
        """Computes the masks of the valid actions, which the loss and its metrics are of.

        Returns:
            of the surrogates' kinds, `latents` `[chains, actions]`, `answers` `[trajectories, tokens]` and,
            where plans are drawn, `plans` `[chains, tokens]`; of whole `trajectories` `[trajectories, 1]`;
            and of the latents, `slots` `[chains, slots]` and `stops` `[chains, steps]`. With
            `mask_truncated_completions` an answer that did not end is left out, and so is a chain of latents
            without an answer that did.
        """
        trajectories = batch.trajectories
        _, latents = self.gradient.chain_actions(
            trajectories.latent_log_probs, trajectories.stop_log_probs, trajectories
        )
        valid = self.valid_trajectories(trajectories)
        chains = valid.unflatten(0, (len(latents), -1)).any(dim=1)
        masks = {
            "answers": trajectories.answer_mask * valid.unsqueeze(1),
            "latents": latents * chains.unsqueeze(1),
            "trajectories": valid.unsqueeze(1).long(),
            "slots": trajectories.slot_mask * chains.unsqueeze(1),
            "stops": trajectories.stop_mask * chains.unsqueeze(1),
        }
        if batch.plans is not None:
            masks["plans"] = batch.plans.mask.flatten(1) * chains.unsqueeze(1)
        return masks

    def num_items(self, minibatches: Sequence[Minibatch]) -> dict[str, Tensor]:
        """Counts the valid actions of each kind in a minibatch, on average over these: `dapo`'s divisor."""
        masks = [self.masks(batch) for batch in minibatches]
        return {name: torch.stack([mask[name].sum() for mask in masks]).float().mean() for name in masks[0]}

    def average(self, loss: Tensor, mask: Tensor, name: str, batch: Minibatch) -> Tensor:
        """Averages a loss `[rows, actions]` over the valid actions called `name`, as `loss_type` says.

        The sizes that it may divide by are the most actions of the kind that any trajectory can have, and
        those that a minibatch of the rollout has on average.
        """
        slots, size = self.shape.num_slots, self.shape.latents_per_step
        longest = {**dict.fromkeys(("latents", "slots", "stops"), slots + 1), "trajectories": 1}
        longest["plans"] = slots // size * MAX_STEP_TOKENS
        max_length = longest.get(name, self.config.max_completion_length)
        return self.loss_type(loss, mask, max_length=max_length, num_items=batch.num_items.get(name))

    def kl_penalty(self, scores: Scores, batch: Minibatch) -> dict[str, Tensor]:
        """Computes `kl`, `beta` times the KL to the starting policy, a scalar; nothing without `beta`.

        Tokens by TRL's estimator, latents and stops in closed form, which `use_bias_correction_kl` leaves as
        it is: no sampled action stands for the distribution. The starting policy scores the latents
        that the policy has now; where these are functions of the policy, so is what the start says of them.
        """
        if self.reference is None:
            return {}
        masks, now = self.masks(batch), replace(batch.trajectories, latents=scores.chain.latents)
        reference = score(self.reference, now, self.sampling)
        old = scores.answers if batch.old is None else batch.old.answers
        corrects = self.config.use_bias_correction_kl
        kinds = {"answers": token_kl(scores.answers, reference.answers, old if corrects else None)}
        if scores.chain.log_variance is not None:
            temperature = self.sampling.latent_temperature
            kinds["slots"] = latent_kl(scores.chain, reference.chain, temperature)
        if scores.stop_logits is not None and reference.stop_logits is not None:
            kinds["stops"] = stop_kl(scores.stop_logits, reference.stop_logits, self.sampling.temperature)
        named = {"slots": "latents"}
        parts = {
            named.get(name, name): self.average(value, masks[name], name, batch)
            for name, value in kinds.items()
        }
        kl = torch.stack(list(parts.values())).sum()
        self.record(kl=kl, **{f"kl/{name}": part for name, part in parts.items()})
        return {"kl": self.config.beta * kl}

    def record_scores(self, scores: Scores, batch: Minibatch) -> None:
        """Records what scores show of the policy: entropy, between-question std of the latents, σ."""
        masks = self.masks(batch)
        written, used = masks["answers"], masks["slots"]
        if used.shape[1]:
            spread = between_question_std(scores.chain.mean, used, batch.trajectories.draws)
            self.record(**{"latents/spread": spread})
        self.record(entropy=(scores.entropy * written).sum() / written.sum())
        if scores.chain.log_variance is not None:
            sigma = (0.5 * scores.chain.log_variance.detach()).exp().mean(dim=-1)
            self.record(**{"latents/sigma": (sigma * used).sum() / used.sum().clamp(min=1)})

    def record_difference(self, actions: Actions, mask: Tensor) -> None:
        """Records how far log-probabilities before the first update are from those of the rollout.

        Both are of the same policy: what they differ by is rounding, of other kernels and dtypes. TRL's
        `sampling/sampling_logp_difference` is that of answer tokens.
        """
        difference = (actions.log_probs - actions.old_log_probs).detach().abs()
        difference = difference.masked_fill(~mask.bool(), 0.0)
        if difference.numel():
            kind = "" if actions.name == "answers" else f"/{actions.name}"
            metric = f"sampling/sampling_logp_difference{kind}"
            mean = difference.sum() / mask.sum().clamp(min=1)
            self.record(**{f"{metric}/mean": mean, f"{metric}/max": difference.max()})
