"""`EvaluatedModel`: a model, its problems and what it answered, computed once and shared by all findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from latentplan.evaluation.metrics import are_correct
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.thinking import LatentChain, unroll
from latentplan.problems.counterfactuals import Counterfactual
from latentplan.problems.problem import Problem
from latentplan.rollout.interventions import Intervention, completions_with, of_an_equal_chain
from latentplan.rollout.solve import GreedyChains, greedy_chains, question_batch


@dataclass
class EvaluatedModel:
    """What is examined.

    Attributes:
        model: reasoner, decoder, tokenizer; in evaluation mode.
        problems: with their answers.
        partners: of each problem, or None where it has none.
        seed: of noise and samples.
        max_new_tokens: of a completion.
        batch_size: trajectories at a time.
        num_generations: samples of each problem, for plan coverage.
        variance_problems: problems at most whose rewards are taken apart.
        run: the run directory around the model, if there is one.
    """

    model: LoadedModel
    problems: Sequence[Problem]
    partners: Sequence[Counterfactual | None]
    seed: int = 0
    max_new_tokens: int = 128
    batch_size: int = 128
    num_generations: int = 8
    variance_problems: int = 64
    run: Path | None = None

    @property
    def has_latents(self) -> bool:
        """Whether the model reasons in latents at all."""
        return self.model.reasoner.config.has_latents

    @property
    def latents_are_steps(self) -> bool:
        """Whether latents stand for steps, and not for a number of tokens."""
        return self.model.reasoner.config.latents_are_steps

    @cached_property
    def greedy(self) -> GreedyChains:
        """The most probable trajectory of each problem, in the order of the questions' length."""
        return self.greedy_chains([problem.question for problem in self.problems])

    def greedy_chains(self, questions: Sequence[str]) -> GreedyChains:
        """Computes the most probable trajectory of each question."""
        return greedy_chains(
            self.model, questions, batch_size=self.batch_size, max_new_tokens=self.max_new_tokens
        )

    @property
    def chains(self) -> GreedyChains:
        """The greedy latents; only of a model that has latents."""
        assert self.has_latents
        return self.greedy

    @cached_property
    def ordered(self) -> list[Problem]:
        """The problems in the order of the greedy trajectories."""
        return [self.problems[index] for index in self.greedy.indices]

    @cached_property
    def correct(self) -> list[bool]:
        """Whether each greedy answer is correct, in their order."""
        return self.judge([solution.completion for solution in self.greedy.solutions])

    @cached_property
    def used_steps(self) -> list[int]:
        """Latent steps of each greedy chain."""
        slots = self.chains.slot_mask.sum(dim=1) // self.model.reasoner.config.latents_per_step
        return slots.tolist()

    def judge(self, completions: Sequence[str]) -> list[bool]:
        """Returns whether completions, in the order of the greedy trajectories, are correct."""
        return are_correct(completions, self.ordered)

    def completions(self, intervention: Intervention, chains: GreedyChains | None = None) -> list[str]:
        """Writes the completions after an intervention on the model's chains (or on others of the same
        questions).
        """
        return completions_with(
            self.model,
            self.problems,
            self.chains if chains is None else chains,
            intervention,
            seed=self.seed,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )

    @cached_property
    def exchanged(self) -> list[str]:
        """What it writes with the latents of another question."""
        return self.completions(of_an_equal_chain)

    @cached_property
    @torch.no_grad()
    def distributions(self) -> LatentChain:
        """Means and log-variances of the greedy chains, `[questions, slots, hidden]`, on the CPU."""
        means: list[torch.Tensor] = []
        log_variances: list[torch.Tensor] = []
        for start in range(0, len(self.ordered), self.batch_size):
            rows = slice(start, start + self.batch_size)
            ids, mask = question_batch(self.model, [problem.question for problem in self.ordered[rows]])
            slot_mask = self.chains.slot_mask[rows].to(ids.device)
            reasoner = self.model.reasoner
            chain = unroll(reasoner, reasoner.start(ids, mask), slot_mask)
            means.append(chain.mean.float().cpu())
            if chain.log_variance is not None:
                log_variances.append(chain.log_variance.float().cpu())
        mean = torch.cat(means)
        log_variance = torch.cat(log_variances) if log_variances else None
        return LatentChain(mean, mean, log_variance, self.chains.slot_mask)
