"""The likelihood of the right answer as the objective: latents are sampled, answers are not.

Given its latents a chain makes the right answer likely to some degree, and that degree, or its logarithm, is
differentiable in the latents: what sampling answers estimates with noise is known here. VeriFree
(arXiv:2505.21493) and JEPO (arXiv:2503.19618) do the same for written chains, whose tokens need a score
function; latents z = μ + σ·ε need none, and only stops keep theirs. Answers have to be written as in the
data: another spelling of the right answer counts as wrong.

GRPO, and the likelihood of the right answer beside it: both through the same latents, in one pass.

The rewards of sampled answers say what is better than what the policy does already; where it is rarely right
they say little. `likelihood_weight` adds the log-likelihood of the answer that the data have, given each
chain of latents, whose gradient needs no luck (as `likelihood` alone; VeriFree, arXiv:2505.21493, and JEPO,
arXiv:2503.19618, for written chains). Rewards that are no answer, such as coherence, count as ever, and stops
follow the rewards alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import Scores
from latentplan.rollout.solve import question_batch
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.configs import GRPOConfig
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.latent_gradients import Actions
from latentplan.training.rl_losses import (
    clipped_surrogate,
    group_advantages,
    leave_one_out_mean,
    no_scaling,
)
from latentplan.training.rollout_batch import (
    KnownAnswers,
    Minibatch,
    Sampled,
    check_answers,
    instead_of_samples,
)
from latentplan.training.trainable_model import LatentModelForTraining

Value = Callable[[torch.Tensor], torch.Tensor]
"""From log-likelihoods of answers, `[chains]`, to what is maximised."""

VALUES: dict[str, Value] = {"likelihood": torch.exp, "log_likelihood": lambda log_likelihood: log_likelihood}


def expected_value(
    scores: Scores, old_stops: torch.Tensor, trajectories: Trajectories, value: Value, **clipping: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minus the mean of `value` over chains, with the score function of their stops, and the values.

    Args:
        scores: of the trajectories, the latents being functions of the parameters.
        old_stops: `[chains, steps]`, the log-probabilities of the stop decisions before the first update.
        trajectories: with the right answers.
        value: what is maximised of each log-likelihood.
        clipping: `epsilon`, `epsilon_high`, `max_log_ratio` of the stops' ratios.

    Returns:
        a scalar, and `[chains]` without gradients.
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


class LikelihoodTrainer(GRPOTrainer):
    """GRPO's chains of latents; the loss is how unlikely they make the answers of the data.

    Raises:
        ValueError: the model has no latents, a setting makes no sense without sampled answers, or a problem
            has no answer.
    """

    def __init__(self, model: LoadedModel, config: GRPOConfig, *args: Any, **kwargs: Any):
        name = config.estimator
        if not model.reasoner.config.num_slots:
            raise ValueError(f"estimator {name} moves latents, and {model.reasoner.config.method} has none")
        if config.answers_per_latent != 1 or config.beta:
            raise ValueError(
                f"estimator {name} samples no answers: set answers_per_latent to 1 and beta to 0"
            )
        self.value = VALUES[name]
        super().__init__(model, config, *args, **kwargs)
        known = [] if self.validation is None else self.validation.problems
        check_answers(f"estimator {name}", self.problems, known)

    def _roll_out(self, places: list[int], rollout: int) -> list[Minibatch]:
        sampled = self.draw(places, rollout)
        used = sampled.trajectories.slot_mask.sum(dim=1).float()
        self.record(**{"latents/mean_length": used.mean()})
        return self.split(sampled, self.rewards_of(sampled), self.minibatches)

    def sample(self, problems: Sequence[Problem], places: Sequence[int], seed: int) -> Sampled:
        """Chains of latents, with the answers of the data behind them; nothing is read as text."""
        ids, mask = question_batch(self.loaded, [problem.question for problem in problems])
        trajectories = generate(
            self.loaded.reasoner,
            ids,
            mask,
            torch.tensor(places, device=ids.device),
            seed=seed,
            sampling=replace(self.sampling, max_new_tokens=1),
            draws=self.args.num_generations,
        )
        known = KnownAnswers.of_problems(self.loaded, problems)
        return Sampled(problems, instead_of_samples(trajectories, known), solutions=[])

    def rewards_of(self, sampled: Sampled) -> torch.Tensor:
        """Zeros `[chains]`: what a chain is worth is known only when it is scored."""
        return sampled.trajectories.answer_log_probs.new_zeros(len(sampled.trajectories.latents))

    def _advantages(self, rewards: torch.Tensor, finished: torch.Tensor) -> torch.Tensor:
        return rewards

    def losses(self, system: LatentModelForTraining, batch: Minibatch) -> dict[str, torch.Tensor]:
        """Minus the expected value of the right answer, stops included."""
        trajectories = batch.trajectories
        scores = self.policy_loss.scores(system, trajectories)
        old_stops = scores.stops.detach() if batch.old is None else batch.old.stops
        stops = Actions("latents", old_stops, trajectories.stop_log_probs, trajectories.stop_mask)
        self.policy_loss.record_difference(stops, trajectories.stop_mask)
        loss, values = expected_value(
            scores,
            old_stops,
            trajectories,
            self.value,
            epsilon=self.args.epsilon,
            epsilon_high=self.args.epsilon_high,
            max_log_ratio=self.args.max_log_ratio,
        )
        groups = values.unflatten(0, (-1, trajectories.draws))
        self.record(reward=values.mean(), reward_std=groups.std(dim=1).mean())
        self.policy_loss.record_scores(scores, batch)
        return {"answers": loss}


class HybridTrainer(GRPOTrainer):
    """GRPO with `likelihood_weight` times the mean log-likelihood of the right answers as one more objective.

    Raises:
        ValueError: a problem has no answer.
    """

    def __init__(self, model: LoadedModel, config: GRPOConfig, *args: Any, **kwargs: Any):
        super().__init__(model, config, *args, **kwargs)
        known = [] if self.validation is None else self.validation.problems
        check_answers("likelihood_weight", self.problems, known)

    def sample(self, problems: Sequence[Problem], places: Sequence[int], seed: int) -> Sampled:
        """A rollout, and the answers of the data."""
        known = KnownAnswers.of_problems(self.loaded, problems)
        return replace(super().sample(problems, places, seed), known=known)

    def losses(self, system: LatentModelForTraining, batch: Minibatch) -> dict[str, torch.Tensor]:
        """As GRPO's, and `likelihood`."""
        scores, likelihoods = self.policy_loss.scores_of_sampled(system, batch)
        assert likelihoods is not None
        self.record(**{"answers/log_likelihood": likelihoods.detach().mean()})
        return {
            **self.losses_of(system, scores, batch),
            "likelihood": -self.args.likelihood_weight * likelihoods.mean(),
        }
