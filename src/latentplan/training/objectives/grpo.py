"""GRPO (arXiv:2402.03300): each action has a clipped ratio of its own, an advantage in its group.

With `likelihood_weight` the log-likelihood of the data's answer is one more part of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentplan.common.plugins import setting
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rollout.logprobs import Scores
from latentplan.training.configs import plug_in
from latentplan.training.latent_gradients import Actions, LogProbs
from latentplan.training.objectives.objective import RLObjective
from latentplan.training.objectives.reference_likelihood import check_likelihood_weight, likelihood_term
from latentplan.training.rl_losses import (
    BASELINES,
    SCALE_REWARDS,
    clipped_surrogate,
    first_action_of_the_best,
    group_advantages,
    no_baseline,
    no_scaling,
    only_groups_with_contrast,
)
from latentplan.training.rollout_batch import Minibatch, check_answers
from latentplan.training.trainable_model import LatentModelForTraining


@dataclass
class GRPOSettings:
    """GRPO's own settings."""

    likelihood_weight: float = setting(
        0.0,
        "above 0, the log-likelihood of the data's answer given each chain of latents is one more part of "
        "the loss, with this weight (latent_gradient pathwise)",
    )


class GRPO(RLObjective):
    """The clipped surrogate of each kind of action, and the KL to the starting policy."""

    name = "grpo"
    settings_class = GRPOSettings

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.baseline = plug_in("baseline", BASELINES, self.config.baseline)
        self.scale_rewards = plug_in("scale_rewards", SCALE_REWARDS, self.config.scale_rewards)

    @property
    def adds_reference_answers(self) -> bool:
        """Whether `likelihood_weight` is set."""
        return bool(self.settings.likelihood_weight)

    def check(self, model: LoadedModel) -> None:
        """Raises ValueError for settings that mean nothing together or for this model, as `RLObjective`."""
        super().check(model)
        if self.baseline is no_baseline and self.scale_rewards is not no_scaling:
            raise ValueError(
                "baseline none needs scale_rewards none: without a baseline equal rewards, whose standard "
                "deviation is 0, would be divided by it"
            )
        check_likelihood_weight(self.settings.likelihood_weight, self.gradient, model)

    def check_problems(self, problems: Sequence[Problem]) -> None:
        """Raises ValueError for a problem without an answer, where its likelihood is part of the loss."""
        if self.adds_reference_answers:
            check_answers("likelihood_weight", problems)

    def advantages(self, rewards: Tensor, finished: Tensor) -> Tensor:
        """Compares each reward with those of its question, `[trajectories]`, as `baseline` and others say."""
        size = self.config.num_generations
        valid = finished if self.config.mask_invalid_samples else torch.ones_like(finished)
        advantages = group_advantages(
            rewards, size, self.scale_rewards, baseline=self.baseline, valid=valid.float()
        )
        return only_groups_with_contrast(advantages, size) if self.config.filter_groups else advantages

    def losses(self, system: LatentModelForTraining, batch: Minibatch, step: int) -> dict[str, Tensor]:
        """Computes the surrogate of each kind of action, `kl` with `beta`, `likelihood` with its weight."""
        scores, likelihoods = self.scores_of_sampled(system, batch)
        losses = self.losses_of(system, scores, batch)
        if likelihoods is None:
            return losses
        self.record(**{"answers/log_likelihood": likelihoods.detach().mean()})
        return {**losses, "likelihood": likelihood_term(likelihoods, self.settings.likelihood_weight)}

    def losses_of(
        self, system: LatentModelForTraining, scores: Scores, batch: Minibatch
    ) -> dict[str, Tensor]:
        """Computes `losses`, given the scores of the sampled trajectories."""
        losses = self.surrogates(system, scores, batch)
        self.record_scores(scores, batch)
        return {**losses, **self.kl_penalty(scores, batch)}

    def surrogates(
        self, system: LatentModelForTraining, scores: Scores, batch: Minibatch
    ) -> dict[str, Tensor]:
        """Computes the clipped surrogate of each kind of `clipped_actions`, scalars by name."""
        new, masks = self.log_probs(system, scores, batch), self.masks(batch)
        old = new.detach() if batch.old is None else batch.old
        sampled = LogProbs.of_rollout(batch.trajectories, batch.plans)
        for each in self.actions(old, sampled, batch):
            self.record_difference(each, masks[each.name])
        actions = self.clipped_actions(self.actions(new, old, batch), masks)
        return {each.name: self.surrogate(each, masks[each.name], batch) for each in actions}

    def clipped_actions(self, kinds: list[Actions], masks: dict[str, Tensor]) -> list[Actions]:
        """Returns the actions that have a ratio of their own, by kind: here all that the policy took."""
        return kinds

    def surrogate(self, actions: Actions, mask: Tensor, batch: Minibatch) -> Tensor:
        """Computes the clipped surrogate of one kind of action, averaged over the valid ones: a scalar."""
        surrogate = clipped_surrogate(
            actions.log_probs,
            actions.old_log_probs,
            self.action_advantages(actions, batch),
            mask,
            self.config.epsilon,
            self.config.epsilon_high,
            self.config.max_log_ratio,
        )
        self.record_ratios(actions, mask, surrogate.clipped)
        return self.average(surrogate.loss, mask, actions.name, batch)

    def action_advantages(self, actions: Actions, batch: Minibatch) -> Tensor:
        """Returns advantages `[rows, 1]` or `[rows, actions]`.

        A row that several trajectories share, a chain of latents, has the mean of those that are valid and
        have a reward.
        """
        rows, valid = actions.mask.shape[0], self.valid_trajectories(batch.trajectories)
        if batch.has_reward is not None:
            valid = valid & batch.has_reward
        weights = valid.to(batch.advantages.dtype).unflatten(0, (rows, -1))
        advantages = (batch.advantages.unflatten(0, (rows, -1)) * weights).sum(dim=1)
        advantages = advantages / weights.sum(dim=1).clamp(min=1)
        if self.config.first_slot_of_best and actions.name == "latents":
            return first_action_of_the_best(
                advantages, actions.old_log_probs, actions.mask, batch.trajectories.draws
            )
        return advantages.unsqueeze(1)

    def record_ratios(self, actions: Actions, mask: Tensor, clipped: Tensor) -> None:
        """Records how far a kind of action has moved since the rollout, and the share without gradient."""
        name, taken, count = actions.name, mask.bool(), mask.sum().clamp(min=1)
        log_ratio = (actions.log_probs - actions.old_log_probs).detach().masked_fill(~taken, 0.0)
        beyond = log_ratio.abs() > self.config.max_log_ratio
        share = clipped.sum() / count
        self.record(**{"clip_ratio/region_mean": share, f"clip_ratio/{name}": share})
        self.record(**{"clip_ratio/clamped": beyond.sum() / count})
        self.record(**{f"log_ratio/{name}": log_ratio.abs().sum() / count})
