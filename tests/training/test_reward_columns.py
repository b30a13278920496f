"""What a reward is handed in RL: columns of the problems, and the problems themselves."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from latentplan.problems.problem import Problem
from latentplan.rewards import RewardSet
from latentplan.rollout.solve import Solution
from latentplan.training.rollout_batch import reward


def test_rewards_are_handed_the_problem_of_each_trajectory():
    problems = [
        Problem("What?", ("<<3+4=7>>",), "7", plans=(("<<3+4=7>>",), ("<<4+3=7>>",))),
        Problem("Which?\nA) 6\nB) 7", (), "B", answer_kind="choice"),
    ]
    solutions = [Solution(text, ["<<4+3=7>>"], 1, 4, True) for text in ("### 7.0", "### (b)")]
    trajectories = SimpleNamespace(slot_mask=torch.ones(2, 1), latents=torch.zeros(2, 1, 3), answers=1)

    def valid(prompts, completions, problems=None, decoded_steps=None, **kwargs):
        pairs = zip(problems, decoded_steps, strict=True)
        return [None if problem.plans is None else tuple(plan) in problem.plans for problem, plan in pairs]

    rewarded = reward(RewardSet(["accuracy", valid]), problems, solutions, trajectories)
    assert rewarded.totals == [2.0, 1.0]
