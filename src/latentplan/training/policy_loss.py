"""GRPO's loss: the clipped surrogate of each kind of action, and the KL to the starting policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from latentplan.methods.system import LatentSystem
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.log_probs import Scores, score
from latentplan.rollout.plan_tokens import MAX_STEP_TOKENS, PlanTokens, score_plans
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.advantages import first_action_of_the_best
from latentplan.training.arguments import GRPOConfig
from latentplan.training.divergence import latent_divergence, stop_divergence
from latentplan.training.estimators import ESTIMATORS, Actions
from latentplan.training.objectives import LOSS_TYPES, clipped_surrogate, token_kl
from latentplan.training.rl_settings import choose
from latentplan.training.rollouts import Minibatch
from latentplan.training.spread import latent_spread


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

    def scores(self, system: LatentSystem, trajectories: Trajectories) -> Scores:
        """The log-probabilities of trajectories, as the estimator takes them."""
        return self.estimator.scores(system.reasoner, trajectories, self.sampling)

    def surrogates(self, system: LatentSystem, scores: Scores, batch: Minibatch) -> dict[str, torch.Tensor]:
        """The clipped surrogate of each kind of action, scalars."""
        actions = self.estimator.actions(scores, batch.trajectories, self.latent_scale)
        if batch.plans is not None:
            actions.append(self._plan_actions(system, scores, batch.plans))
        return {each.name: self._surrogate(each, batch) for each in actions}

    def _plan_actions(self, system: LatentSystem, scores: Scores, plans: PlanTokens) -> Actions:
        """The tokens of drawn plans, which the latents make likelier or less likely."""
        assert system.step_decoder is not None
        temperature = self.config.plan_temperature
        log_probs = score_plans(system.step_decoder, scores.chain.latents, plans, temperature)
        return Actions("plans", log_probs.flatten(1), plans.log_probs.flatten(1), plans.mask.flatten(1))

    def _surrogate(self, actions: Actions, batch: Minibatch) -> torch.Tensor:
        advantages, counted = self._advantages(actions, batch)
        mask = actions.mask * counted.unsqueeze(1)
        surrogate = clipped_surrogate(
            actions.log_probs,
            actions.old_log_probs,
            advantages,
            mask,
            self.config.epsilon,
            self.config.epsilon_high,
            self.config.max_log_ratio,
        )
        self._record_ratios(actions, mask, surrogate.clipped)
        return self._average(surrogate.loss, mask, actions.name)

    def _record_ratios(self, actions: Actions, mask: torch.Tensor, clipped: torch.Tensor) -> None:
        """How far this kind of action has moved since it was sampled, and the share without a gradient."""
        name, taken, count = actions.name, mask.bool(), mask.sum().clamp(min=1)
        log_ratio = (actions.log_probs - actions.old_log_probs).detach().masked_fill(~taken, 0.0)
        beyond = log_ratio.abs() > self.config.max_log_ratio
        share = clipped.sum() / count
        self.record(**{"clip_ratio/region_mean": share, f"clip_ratio/{name}": share})
        self.record(**{"clip_ratio/clamped": beyond.sum() / count})
        self.record(**{f"log_ratio/{name}": log_ratio.abs().sum() / count})

    def _advantages(self, actions: Actions, batch: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages `[rows]` or `[rows, actions]`, and which rows count, `[rows]`.

        A row that several trajectories share, a chain of latents, has the mean of those that count.
        """
        rows = actions.mask.shape[0]
        counted = torch.ones_like(batch.advantages)
        if self.config.mask_truncated_completions:
            counted = batch.trajectories.finished.to(counted.dtype)
        counted = counted.unflatten(0, (rows, -1))
        advantages = (batch.advantages.unflatten(0, (rows, -1)) * counted).sum(dim=1)
        advantages = advantages / counted.sum(dim=1).clamp(min=1)
        if self.config.first_slot_of_best and actions.name == "latents":
            advantages = first_action_of_the_best(
                advantages, actions.old_log_probs, actions.mask, batch.trajectories.draws
            )
        return advantages, counted.sum(dim=1) > 0

    def _average(self, loss: torch.Tensor, mask: torch.Tensor, name: str) -> torch.Tensor:
        """`loss_type`, with the most actions of a kind that any trajectory can have as its constant."""
        slots, size = self.shape.num_slots, self.shape.latents_per_step
        longest = {"latents": slots + 1, "plans": slots // size * MAX_STEP_TOKENS}
        return self.loss_type(loss, mask, max_length=longest.get(name, self.config.max_completion_length))

    def kl(self, scores: Scores, trajectories: Trajectories, start: LatentReasoner) -> torch.Tensor:
        """`beta` times the KL to the policy `start`: tokens by TRL's estimator, the rest in closed form.

        The starting policy is asked about the latents that the policy has now. Under `pathwise` they are
        functions of the policy, so that what the start says of them has a gradient, too.
        """
        now = replace(trajectories, latents=scores.chain.latents)
        reference = score(start, now, self.sampling)
        tokens = token_kl(scores.answers, reference.answers)
        parts = {"answers": self._average(tokens, trajectories.answer_mask, "answers")}
        if scores.chain.log_variance is not None:
            latents = latent_divergence(scores.chain, reference.chain, self.sampling.latent_temperature)
            parts["latents"] = self._average(latents, trajectories.slot_mask, "latents")
        if scores.stop_logits is not None and reference.stop_logits is not None:
            stops = stop_divergence(scores.stop_logits, reference.stop_logits, self.sampling.temperature)
            parts["stops"] = self._average(stops, trajectories.stop_mask, "latents")
        kl = torch.stack(list(parts.values())).sum()
        self.record(kl=kl, **{f"kl/{name}": part for name, part in parts.items()})
        return self.config.beta * kl

    def record_scores(self, scores: Scores, trajectories: Trajectories) -> None:
        """Records what scores show of the policy: entropy, spread of the latents, σ."""
        mask = trajectories.answer_mask
        if trajectories.slot_mask.shape[1]:
            spread = latent_spread(scores.chain.mean, trajectories.slot_mask, trajectories.draws)
            self.record(**{"latents/spread": spread})
        self.record(entropy=scores.entropy.sum() / mask.sum())
        if scores.chain.log_variance is not None:
            used = trajectories.slot_mask
            sigma = (0.5 * scores.chain.log_variance.detach()).exp().mean(dim=-1)
            self.record(**{"latents/sigma": (sigma * used).sum() / used.sum().clamp(min=1)})
