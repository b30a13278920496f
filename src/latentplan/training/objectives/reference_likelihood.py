"""The likelihood of the reference answer as the objective: latents are sampled, answers are not.

Given its latents a chain makes the data's answer likely to some degree, and that degree, or its logarithm, is
differentiable in the latents: what sampling answers estimates with noise is known here. VeriFree
(arXiv:2505.21493) and JEPO (arXiv:2503.19618) do the same for explicit chains of thought, whose tokens need a
score function; latents z = μ + σ·ε need none, and only stops keep theirs. Answers have to be written as in
the data: another spelling of the right answer is a wrong one.

Beside an objective on rewards it is one more term (`likelihood_weight`). The rewards of sampled answers say
what is better than what the policy does already; where it is rarely right they say little, and the gradient
of the reference answer's log-likelihood needs no luck. Stops follow the rewards alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latentplan.common.plugins import setting
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.token_loop import InputRule
from latentplan.problems.problem import Problem
from latentplan.rollout.logprobs import Scores
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.configs import plug_in
from latentplan.training.latent_gradients import Actions, LatentGradient
from latentplan.training.objectives.objective import ADVANTAGE_SETTINGS, RLObjective
from latentplan.training.rl_losses import clipped_surrogate, group_advantages, leave_one_out_mean, no_scaling
from latentplan.training.rollout_batch import (
    KnownAnswers,
    Minibatch,
    Sampled,
    check_answers,
    instead_of_samples,
)
from latentplan.training.trainable_model import LatentModelForTraining

Value = Callable[[Tensor], Tensor]
"""From log-likelihoods of answers, `[chains]`, to what is maximised."""

VALUES: dict[str, Value] = {"likelihood": torch.exp, "log_likelihood": lambda log_likelihood: log_likelihood}
"""What `maximize` can name beside a function of the user's."""


@dataclass
class ReferenceLikelihoodSettings:
    """The settings of the reference answer's likelihood as the objective."""

    maximize: str = setting(
        "log_likelihood",
        "what is maximised of the data's answers given a chain of latents: likelihood, log_likelihood, or a "
        "function of yours, package.module:function",
    )


def expected_value(
    scores: Scores, old_stops: Tensor, trajectories: Trajectories, value: Value, **clipping: Any
) -> tuple[Tensor, Tensor]:
    """Computes minus the mean of `value` over chains, with the score function of their stops.

    Args:
        scores: of the trajectories, the latents being functions of the parameters.
        old_stops: `[chains, steps]`, the log-probabilities of the stop decisions before the first update.
        trajectories: with the reference answers.
        value: what is maximised of each log-likelihood.
        clipping: `epsilon`, `epsilon_high`, `max_log_ratio` of the stops' ratios.

    Returns:
        the loss, a scalar, and the values, `[chains]`, without gradients.
    """
    values = value((scores.answers * trajectories.answer_mask).sum(dim=1))
    loss = -values.mean()
    if trajectories.stop_mask.shape[1]:
        advantages = group_advantages(
            values.detach(), trajectories.draws, no_scaling, baseline=leave_one_out_mean
        )
        stops = clipped_surrogate(scores.stops, old_stops, advantages, trajectories.stop_mask, **clipping)
        loss = loss + stops.loss.sum(dim=1).mean()
    return loss, values.detach()


class ReferenceLikelihood(RLObjective):
    """How likely chains of latents make the data's answers; no answer is sampled, nothing is rewarded."""

    name = "reference_likelihood"
    settings_class = ReferenceLikelihoodSettings
    latent_gradients = ("pathwise",)
    ignored_settings = (
        *ADVANTAGE_SETTINGS,
        "mask_truncated_completions",
        "loss_type",
        "plan_temperature",
    )
    needs_latents = True
    needs_rewards = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.value = plug_in("maximize", VALUES, self.settings.maximize)

    def check(self, model: LoadedModel) -> None:
        """Raises ValueError for settings of sampled answers, and as other objectives do."""
        if self.config.answers_per_latent != 1 or self.config.beta:
            raise ValueError(
                f"objective {self.name} samples no answers: set answers_per_latent to 1 and beta to 0"
            )
        super().check(model)

    def check_problems(self, problems: Sequence[Problem]) -> None:
        """Raises ValueError for a problem without an answer."""
        check_answers(f"objective {self.name}", problems)

    def sample(
        self, model: LoadedModel, problems: Sequence[Problem], indices: Sequence[int], seed: int
    ) -> Sampled:
        """Draws chains of latents, with the answers of the data behind them; nothing is read as text."""
        only_latents = replace(self.sampling, max_new_tokens=1)
        trajectories = self.generate(model, problems, indices, seed, only_latents)
        known = KnownAnswers.of_problems(model, problems)
        return Sampled(problems, instead_of_samples(trajectories, known), solutions=[])

    def advantages(self, rewards: Tensor, finished: Tensor) -> Tensor:
        """Returns the rewards, which are 0: what a chain is worth is known only when it is scored."""
        return rewards

    def losses(self, system: LatentModelForTraining, batch: Minibatch, step: int) -> dict[str, Tensor]:
        """Computes minus the expected value of the reference answer, stops included."""
        trajectories = batch.trajectories
        scores = self.scores(system, trajectories)
        old_stops = scores.stops.detach() if batch.old is None else batch.old.stops
        stops = Actions("latents", old_stops, trajectories.stop_log_probs, trajectories.stop_mask)
        self.record_difference(stops, trajectories.stop_mask)
        loss, values = expected_value(
            scores,
            old_stops,
            trajectories,
            self.value,
            epsilon=self.config.epsilon,
            epsilon_high=self.config.epsilon_high,
            max_log_ratio=self.config.max_log_ratio,
        )
        groups = values.unflatten(0, (-1, trajectories.draws))
        self.record(reward=values.mean(), reward_std=groups.std(dim=1).mean())
        self.record_scores(scores, batch)
        return {"answers": loss}


def likelihood_term(log_likelihoods: Tensor, weight: float) -> Tensor:
    """Computes minus `weight` times the mean of the reference answers' log-likelihoods `[chains]`."""
    return -weight * log_likelihoods.mean()


def check_likelihood_weight(weight: float, gradient: LatentGradient, model: LoadedModel) -> None:
    """Raises ValueError where a `likelihood_weight` does not reach the latents or fit the input rule."""
    if weight < 0 or (weight and not gradient.through_latents):
        raise ValueError(
            f"likelihood_weight={weight} teaches latents what makes the right answer likely: it needs a "
            "number above 0, and latent_gradient pathwise"
        )
    shape = model.reasoner.config
    if weight and shape.input_rule != InputRule.name:
        raise ValueError(
            f"likelihood_weight scores right answers as tokens beside samples that input_rule "
            f"{shape.input_rule} read as mixtures: set likelihood_weight to 0"
        )
    if weight and not shape.has_latents:
        raise ValueError(f"likelihood_weight moves latents, and {shape.method} has none")
