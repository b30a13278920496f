"""GRPO's loss: the clipped surrogate of each kind of action, and the KL to the starting policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.logprobs import Scores, score
from latentplan.rollout.plan_decoding import MAX_STEP_TOKENS, score_plans
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.configs import GRPOConfig, choose
from latentplan.training.latent_gradients import ESTIMATORS, Actions, LogProbs
from latentplan.training.rl_losses import (
    LOSS_TYPES,
    between_question_std,
    clipped_surrogate,
    first_action_of_the_best,
    latent_kl,
    stop_kl,
    token_kl,
)
from latentplan.training.rollout_batch import Minibatch, apart
from latentplan.training.trainable_model import LatentModelForTraining


class PolicyLoss:
    """What a minibatch teaches the policy.

    Args:
        config: the settings.
        model: the policy, whose sizes are needed.
        record: called with metrics by name.

    Raises:
        ValueError: a setting has a value that there is not.
    """

    def __init__(self, config: GRPOConfig, model: LoadedModel, record: Callable[..., None]):
        self.config, self.shape, self.record = config, model.reasoner.config, record
        self.estimator = choose("estimator", ESTIMATORS, config.estimator)
        self.loss_type = choose("loss_type", LOSS_TYPES, config.loss_type)
        scales = {"sum": 1.0, "mean": 1.0 / self.shape.hidden_size}
        self.latent_scale = choose("latent_logprob", scales, config.latent_logprob)
        self.sampling = Sampling(config.temperature, config.latent_temperature, config.max_completion_length)

    def scores(self, system: LatentModelForTraining, trajectories: Trajectories) -> Scores:
        """The log-probabilities of trajectories, as the estimator takes them."""
        return self.estimator.scores(system.reasoner, trajectories, self.sampling)

    def scores_of_sampled(
        self, system: LatentModelForTraining, batch: Minibatch
    ) -> tuple[Scores, torch.Tensor | None]:
        """The scores of what was sampled, and the log-likelihoods of reference answers, `[chains]`.

        Both from one pass; None where reference answers are not requested.
        """
        scores = self.scores(system, batch.scored)
        return (scores, None) if batch.known is None else apart(scores, sampled=batch.trajectories)

    def log_probs(self, system: LatentModelForTraining, scores: Scores, batch: Minibatch) -> LogProbs:
        """Of the actions of a minibatch, plans included, as functions of the latents in `scores`."""
        plans = None
        if batch.plans is not None:
            assert system.step_decoder is not None
            temperature = self.config.plan_temperature
            plans = score_plans(system.step_decoder, scores.chain.latents, batch.plans, temperature)
        return LogProbs(scores.latents, scores.stops, scores.answers, plans)

    def masks(self, batch: Minibatch) -> dict[str, torch.Tensor]:
        """The valid actions of each kind: those that the loss and its metrics are of, 0 elsewhere.

        Of the surrogates' kinds, `latents` `[chains, actions]`, `answers` `[trajectories, tokens]` and, where
        plans are drawn, `plans` `[chains, tokens]`; and of the latents, `slots` `[chains, slots]` and `stops`
        `[chains, steps]`. With `mask_truncated_completions` an answer that did not end is left out, and so is
        a chain of latents without an answer that did.
        """
        trajectories = batch.trajectories
        _, latents = self.estimator.chain_actions(
            trajectories.latent_log_probs, trajectories.stop_log_probs, trajectories
        )
        counted = self._counted(trajectories)
        chains = counted.unflatten(0, (len(latents), -1)).any(dim=1)
        masks = {
            "answers": trajectories.answer_mask * counted.unsqueeze(1),
            "latents": latents * chains.unsqueeze(1),
            "slots": trajectories.slot_mask * chains.unsqueeze(1),
            "stops": trajectories.stop_mask * chains.unsqueeze(1),
        }
        if batch.plans is not None:
            masks["plans"] = batch.plans.mask.flatten(1) * chains.unsqueeze(1)
        return masks

    def _counted(self, trajectories: Trajectories) -> torch.Tensor:
        """Which trajectories' answers the loss is of, `[trajectories]`."""
        if self.config.mask_truncated_completions:
            return trajectories.finished
        return torch.ones_like(trajectories.finished)

    def num_items(self, minibatches: Sequence[Minibatch]) -> dict[str, torch.Tensor]:
        """The valid actions of each kind in a minibatch, on average over these: what `dapo` divides by."""
        masks = [self.masks(batch) for batch in minibatches]
        return {name: torch.stack([mask[name].sum() for mask in masks]).float().mean() for name in masks[0]}

    def surrogates(
        self, system: LatentModelForTraining, scores: Scores, batch: Minibatch
    ) -> dict[str, torch.Tensor]:
        """The clipped surrogate of each kind of action, scalars."""
        new, masks = self.log_probs(system, scores, batch), self.masks(batch)
        old = new.detach() if batch.old is None else batch.old
        sampled = LogProbs.of_rollout(batch.trajectories, batch.plans)
        for each in self._actions(old, sampled, batch):
            self.record_difference(each, masks[each.name])
        return {
            each.name: self._surrogate(each, masks[each.name], batch)
            for each in self._actions(new, old, batch)
        }

    def _actions(self, new: LogProbs, old: LogProbs, batch: Minibatch) -> list[Actions]:
        """The actions of each kind; the tokens of drawn plans are of those that the latents make likelier."""
        actions = self.estimator.actions(new, old, batch.trajectories, self.latent_scale)
        if batch.plans is not None and new.plans is not None and old.plans is not None:
            mask = batch.plans.mask.flatten(1)
            actions.append(Actions("plans", new.plans.flatten(1), old.plans.flatten(1), mask))
        return actions

    def record_difference(self, actions: Actions, mask: torch.Tensor) -> None:
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

    def _surrogate(self, actions: Actions, mask: torch.Tensor, batch: Minibatch) -> torch.Tensor:
        surrogate = clipped_surrogate(
            actions.log_probs,
            actions.old_log_probs,
            self._advantages(actions, batch),
            mask,
            self.config.epsilon,
            self.config.epsilon_high,
            self.config.max_log_ratio,
        )
        self._record_ratios(actions, mask, surrogate.clipped)
        return self._average(surrogate.loss, mask, actions.name, batch)

    def _record_ratios(self, actions: Actions, mask: torch.Tensor, clipped: torch.Tensor) -> None:
        """How far this kind of action has moved since the rollout, and the share without a gradient."""
        name, taken, count = actions.name, mask.bool(), mask.sum().clamp(min=1)
        log_ratio = (actions.log_probs - actions.old_log_probs).detach().masked_fill(~taken, 0.0)
        beyond = log_ratio.abs() > self.config.max_log_ratio
        share = clipped.sum() / count
        self.record(**{"clip_ratio/region_mean": share, f"clip_ratio/{name}": share})
        self.record(**{"clip_ratio/clamped": beyond.sum() / count})
        self.record(**{f"log_ratio/{name}": log_ratio.abs().sum() / count})

    def _advantages(self, actions: Actions, batch: Minibatch) -> torch.Tensor:
        """Advantages `[rows]` or `[rows, actions]`.

        A row that several trajectories share, a chain of latents, has the mean of those that count and have a
        reward.
        """
        rows, counted = actions.mask.shape[0], self._counted(batch.trajectories)
        if batch.has_reward is not None:
            counted = counted & batch.has_reward
        counted = counted.to(batch.advantages.dtype).unflatten(0, (rows, -1))
        advantages = (batch.advantages.unflatten(0, (rows, -1)) * counted).sum(dim=1)
        advantages = advantages / counted.sum(dim=1).clamp(min=1)
        if self.config.first_slot_of_best and actions.name == "latents":
            advantages = first_action_of_the_best(
                advantages, actions.old_log_probs, actions.mask, batch.trajectories.draws
            )
        return advantages

    def _average(self, loss: torch.Tensor, mask: torch.Tensor, name: str, batch: Minibatch) -> torch.Tensor:
        """`loss_type`, given the sizes that it may divide by.

        Those are the most actions of the kind that any trajectory can have, and those that a minibatch of
        the rollout has on average.
        """
        slots, size = self.shape.num_slots, self.shape.latents_per_step
        longest = {**dict.fromkeys(("latents", "slots", "stops"), slots + 1)}
        longest["plans"] = slots // size * MAX_STEP_TOKENS
        max_length = longest.get(name, self.config.max_completion_length)
        return self.loss_type(loss, mask, max_length=max_length, num_items=batch.num_items.get(name))

    def kl(self, scores: Scores, batch: Minibatch, start: LatentReasoner) -> torch.Tensor:
        """`beta` times the KL to the policy `start`: tokens by TRL's estimator, the rest in closed form.

        The starting policy is asked about the latents that the policy has now. Under `pathwise` they are
        functions of the policy, so that what the start says of them has a gradient, too. A closed form needs
        no `use_bias_correction_kl`: no sampled action stands for the distribution.
        """
        masks, now = self.masks(batch), replace(batch.trajectories, latents=scores.chain.latents)
        reference = score(start, now, self.sampling)
        old = scores.answers if batch.old is None else batch.old.answers
        corrects = self.config.use_bias_correction_kl
        kinds = {"answers": token_kl(scores.answers, reference.answers, old if corrects else None)}
        if scores.chain.log_variance is not None:
            temperature = self.sampling.latent_temperature
            kinds["slots"] = latent_kl(scores.chain, reference.chain, temperature)
        if scores.stop_logits is not None and reference.stop_logits is not None:
            temperature = self.sampling.temperature
            kinds["stops"] = stop_kl(scores.stop_logits, reference.stop_logits, temperature)
        named = {"slots": "latents"}
        parts = {
            named.get(name, name): self._average(value, masks[name], name, batch)
            for name, value in kinds.items()
        }
        kl = torch.stack(list(parts.values())).sum()
        self.record(kl=kl, **{f"kl/{name}": part for name, part in parts.items()})
        return self.config.beta * kl

    def record_scores(self, scores: Scores, batch: Minibatch) -> None:
        """Records what scores show of the policy: entropy, spread of the latents, σ."""
        masks = self.masks(batch)
        written, used = masks["answers"], masks["slots"]
        if used.shape[1]:
            spread = between_question_std(scores.chain.mean, used, batch.trajectories.draws)
            self.record(**{"latents/spread": spread})
        self.record(entropy=(scores.entropy * written).sum() / written.sum())
        if scores.chain.log_variance is not None:
            sigma = (0.5 * scores.chain.log_variance.detach()).exp().mean(dim=-1)
            self.record(**{"latents/sigma": (sigma * used).sum() / used.sum().clamp(min=1)})
