"""GRPO, and the likelihood of the right answer beside it: both through the same latents, in one pass.

The rewards of sampled answers say what is better than what the policy does already; where it is rarely right
they say little. `likelihood_weight` adds the log-likelihood of the answer that the data have, given each
chain of latents, whose gradient needs no luck (as `likelihood` alone; VeriFree, arXiv:2505.21493, and JEPO,
arXiv:2503.19618, for written chains). Rewards that are no answer, such as coherence, count as ever, and stops
follow the rewards alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from latentplan.methods.system import LatentSystem
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.training.arguments import GRPOConfig
from latentplan.training.grpo import GRPOTrainer
from latentplan.training.known_answers import KnownAnswers, check_answers
from latentplan.training.rollouts import Minibatch, Sampled


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

    def losses(self, system: LatentSystem, batch: Minibatch) -> dict[str, torch.Tensor]:
        """As GRPO's, and `likelihood`."""
        scores, likelihoods = self.policy_loss.scores_of_sampled(system, batch)
        assert likelihoods is not None
        self.record(**{"answers/log_likelihood": likelihoods.detach().mean()})
        return {
            **self.losses_of(system, scores, batch),
            "likelihood": -self.args.likelihood_weight * likelihoods.mean(),
        }
