"""Rewards: plain functions in TRL's form, one file for a family of them, combined by weights."""

from latentplan.rewards.reward_set import (
    BUILT_IN,
    LABELLED_WEIGHTS,
    UNLABELLED_WEIGHTS,
    RewardSet,
    combine_rewards,
    get_reward,
)

__all__ = [
    "BUILT_IN",
    "LABELLED_WEIGHTS",
    "UNLABELLED_WEIGHTS",
    "RewardSet",
    "combine_rewards",
    "get_reward",
]
