"""GSPO (arXiv:2507.18071): one ratio for a whole trajectory, (π(y|x) / π_old(y|x))^(1/|y|).

y is all that the policy does: latents and stops, where they are actions, tokens of drawn plans and of the
answer. |y| is their number, so that the ratio is the geometric mean of the actions' ratios, and a trajectory
is clipped as a whole. Advantages are GRPO's. Such ratios stay close to 1: the paper clips at 3e-4 and 4e-4.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from latentplan.training.latent_gradients import Actions, whole_trajectories
from latentplan.training.objectives.grpo import GRPO


class GSPO(GRPO):
    """GRPO's advantages and clipping, with a ratio that all actions of a trajectory share."""

    name = "gspo"
    ignored_settings = ("first_slot_of_best",)

    def clipped_actions(self, kinds: list[Actions], masks: dict[str, Tensor]) -> list[Actions]:
        """Joins all actions of a trajectory into one, whose log-probability is their mean."""
        joined, count = whole_trajectories(kinds, masks)
        return [replace(joined, log_probs=joined.log_probs / count.clamp(min=1))]
