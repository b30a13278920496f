"""Where the samples of a question differ in their reward: by their latents, their stops, or their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from latentplan.evaluation.diagnosis import findings as figures
from latentplan.evaluation.diagnosis import findings as thresholds
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.findings import NOTED, Finding, at_least, not_applicable
from latentplan.evaluation.metrics import are_correct
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.solve import Solution
from latentplan.rollout.trajectories import Trajectories
from latentplan.rollout.variance_split import VarianceSplit, measure_variance, split_variance

NAME = "reward_variance"
_DRAWS, _STOPS, _ANSWERS = 8, 2, 4


def reward_variance(evaluated: EvaluatedModel) -> Finding:
    """Splits the variance of the reward 'answer correct', at temperature 1 (`rollout.variance_split`)."""
    config = evaluated.model.reasoner.config
    if not evaluated.has_latents:
        return not_applicable(NAME, f"{config.method} has no latents: all that differs is words")
    rewards = sampled_rewards(evaluated)
    split = split_variance(torch.from_numpy(rewards))
    total = figures.resampled("variance within a question's samples", _total, rewards)
    shares = [
        figures.resampled(f"share of the variance: {name}", _share(name), rewards, unit="share")
        for name in split.shares()
    ]
    has_noise = evaluated.distributions.log_variance is not None
    judged = has_noise and split.total > 0
    return Finding(
        NAME,
        at_least(shares[0], thresholds.LATENT_SIGNAL) if judged else NOTED,
        _verdict(split, has_noise),
        f"where RL scores latents, they must carry at least {thresholds.LATENT_SIGNAL:.0%} of the variance "
        "of 'answer right' at temperature 1",
        [total, *shares],
    )


def sampled_rewards(evaluated: EvaluatedModel) -> np.ndarray:
    """Returns whether each sample is correct, `[questions, latents, stops, answers]`, of the first
    questions.
    """
    recorded: list[float] = []

    def accuracy(
        problems: Sequence[Problem], solutions: Sequence[Solution], trajectories: Trajectories
    ) -> Sequence[float]:
        completions = [solution.completion for solution in solutions]
        found = [float(hit) for hit in are_correct(completions, problems)]
        recorded.extend(found)
        return found

    measure_variance(
        evaluated.model,
        evaluated.problems[: evaluated.variance_problems],
        accuracy,
        Sampling(1.0, 1.0, evaluated.max_new_tokens),
        seed=evaluated.seed,
        draws=_DRAWS,
        stops=_STOPS,
        answers=_ANSWERS,
        batch_size=max(evaluated.batch_size, _DRAWS * _STOPS * _ANSWERS),
    )
    stops = 1 if evaluated.model.reasoner.stop_head is None else _STOPS
    return np.array(recorded).reshape(-1, _DRAWS, stops, _ANSWERS)


def _total(rewards: np.ndarray) -> float:
    return split_variance(torch.from_numpy(rewards)).total


def _share(name: str) -> Callable[[np.ndarray], float]:
    return lambda rewards: split_variance(torch.from_numpy(rewards)).shares()[name]


def _verdict(split: VarianceSplit, has_noise: bool) -> str:
    if split.total <= 0:
        return "all samples of a question are equally right: nothing differs that RL could learn from"
    if not has_noise:
        return "the latents are points, the same in every sample, so the rewards differ by words alone"
    parts = ", ".join(f"{share:.1%} by {name}" for name, share in split.shares().items())
    return f"the rewards of a question's samples differ {parts}"
