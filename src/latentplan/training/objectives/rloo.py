"""RLOO (arXiv:2402.14740): the whole trajectory is one action, compared with the others of its question.

The advantage is the reward minus the leave-one-out mean, divided by nothing. As in TRL's RLOOTrainer the
ratio is that of the trajectory's probability, exp Σ (log π − log π_old) over its latents, stops and tokens,
and it is clipped. The KL to the starting policy is a part of the loss; in TRL it is one of the reward.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from latentplan.training.latent_gradients import Actions, whole_trajectories
from latentplan.training.objectives.grpo import GRPO
from latentplan.training.rl_losses import leave_one_out_mean, no_scaling


class RLOO(GRPO):
    """REINFORCE on whole trajectories, with the mean reward of the question's others as the baseline."""

    name = "rloo"
    ignored_settings = ("baseline", "scale_rewards", "first_slot_of_best")

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.baseline, self.scale_rewards = leave_one_out_mean, no_scaling

    def clipped_actions(self, kinds: list[Actions], masks: dict[str, Tensor]) -> list[Actions]:
        """Joins all actions of a trajectory into one, whose log-probability is their sum."""
        joined, _ = whole_trajectories(kinds, masks)
        return [joined]
