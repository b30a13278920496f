"""Where the rewards of a question's samples differ from: its latents, its stops, or the words of its answer.

Each source is drawn again while the ones before it are held, and the variance is taken apart as in a nested
analysis of variance (Searle, Casella & McCulloch, *Variance Components*, 1992, section 3.7). A source without
variance gives a score function nothing to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.engine import generate
from latentplan.rollout.solve import Solution, batches_by_length, question_batch, read_solutions
from latentplan.rollout.trajectories import Trajectories

Rewards = Callable[[Sequence[Problem], Sequence[Solution], Trajectories], Sequence[float]]
"""Problems, solutions and trajectories, one for each sample, to rewards; NaN where there is none."""


@dataclass(frozen=True)
class VarianceSplit:
    """Variances of the reward within a question's samples; estimates of small ones can be below 0.

    Attributes:
        latents: from the noise of the latents.
        stops: from the decisions of the stop head, the latents held.
        answers: from the answer tokens, latents and stops held.
    """

    latents: float
    stops: float
    answers: float

    @property
    def total(self) -> float:
        """Of all samples of a question."""
        return self.latents + self.stops + self.answers

    def shares(self) -> dict[str, float]:
        """Returns each part's share of the total, from 0 to 1; all 0 where nothing differs."""
        parts = {name: max(0.0, value) for name, value in vars(self).items()}
        total = sum(parts.values())
        return {name: value / (total or 1.0) for name, value in parts.items()}


def split_variance(rewards: torch.Tensor) -> VarianceSplit:
    """Computes unbiased variance components, the means over questions.

    Args:
        rewards: `[questions, latents, stops, answers]`: draws of latents, draws of stops for each, answers
            for each of these. A size of 1 (stops) leaves that part out. A question that has a sample without
            a reward (NaN) is left out, for its design is not balanced; without any other all is 0.

    Raises:
        ValueError: there are fewer than two draws of latents or fewer than two answers.
    """
    _, draws, stops, answers = rewards.shape
    if draws < 2 or answers < 2:
        raise ValueError(f"a variance needs two draws of latents and two answers, got {draws} and {answers}")
    rewards = rewards[~rewards.isnan().flatten(1).any(dim=1)].double()
    if not len(rewards):
        return VarianceSplit(0.0, 0.0, 0.0)
    cells = rewards.mean(dim=3)
    within = rewards.var(dim=3).mean()
    between_stops = answers * cells.var(dim=2).mean() if stops > 1 else within
    between_latents = stops * answers * cells.mean(dim=2).var(dim=1).mean()
    return VarianceSplit(
        latents=float((between_latents - between_stops) / (stops * answers)),
        stops=float((between_stops - within) / answers) if stops > 1 else 0.0,
        answers=float(within),
    )


def measure_variance(
    model: LoadedModel,
    problems: Sequence[Problem],
    rewards: Rewards,
    sampling: Sampling,
    *,
    seed: int = 0,
    first: int = 0,
    draws: int = 8,
    stops: int = 2,
    answers: int = 4,
    batch_size: int = 512,
) -> VarianceSplit:
    """Returns the split for a model's own samples of these problems, `draws · stops · answers` of each.

    Args:
        model: reasoner, decoder, tokenizer.
        problems: with what the rewards need.
        rewards: of all samples of a batch.
        sampling: temperatures and length.
        seed: of the noise.
        first: index of the first problem among all, where these are a part; the noise follows from it.
        draws: of the latents.
        stops: of the stop decisions for each draw; 1 for models without a stop head.
        answers: for each of these.
        batch_size: samples at a time, at least those of one problem.
    """
    if model.reasoner.stop_head is None:
        stops = 1
    group = draws * stops * answers
    values = torch.empty(len(problems), draws, stops, answers)
    for indices in batches_by_length([each.question for each in problems], max(1, batch_size // group)):
        chosen = [problems[index] for index in indices]
        ids, mask = question_batch(model, [problem.question for problem in chosen])
        trajectories = generate(
            model.reasoner,
            ids,
            mask,
            first + torch.tensor(indices, device=ids.device),
            seed=seed,
            sampling=sampling,
            draws=draws,
            stops=stops,
            answers=answers,
        )
        repeated = [problem for problem in chosen for _ in range(group)]
        found = rewards(repeated, read_solutions(model, trajectories), trajectories)
        values[indices] = torch.tensor(found, dtype=torch.float32).view(-1, draws, stops, answers)
    return split_variance(values)
