"""Rewards by name: the built-in ones, and the user's own as `package.module:function`."""

from __future__ import annotations

import inspect
import sys

from latentplan.common.plugins import import_named, names_own_code
from latentplan.rewards.accuracy import accuracy, when_correct
from latentplan.rewards.coherence import coherence_paper, coherence_strict
from latentplan.rewards.contract import Reward
from latentplan.rewards.format import format_reward
from latentplan.rewards.length import short_latents, short_latents_if_solved
from latentplan.rewards.natural import coherence_natural
from latentplan.rewards.plan import grounding_reward, plan_reward, validity_reward

BUILT_IN: dict[str, Reward] = {
    "accuracy": accuracy,
    "format": format_reward,
    "coherence_strict": coherence_strict,
    "coherence_paper": coherence_paper,
    "coherence_strict_if_correct": when_correct(coherence_strict),
    "coherence_paper_if_correct": when_correct(coherence_paper),
    "coherence_natural": coherence_natural,
    "coherence_natural_if_correct": when_correct(coherence_natural),
    "short_latents": short_latents,
    "short_latents_if_solved": short_latents_if_solved,
    "validity": validity_reward,
    "grounding": grounding_reward,
    "plan": plan_reward,
}
"""Every reward that has a name of its own."""


def get_reward(name: str) -> Reward:
    """The reward with this name: one of `BUILT_IN`, or `package.module:function`.

    Raises:
        ValueError: there is no such name, module or function; the message lists what there is.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not names_own_code(name):
        raise ValueError(
            f"there is no reward {name!r}: built in are {', '.join(BUILT_IN)}; name your own function as "
            "'package.module:function'"
        )
    function = import_named(name, "reward", None)  # only recipes and flags name rewards
    if not callable(function):
        raise ValueError(_no_function(*name.split(":", 1)))
    return function


def _no_function(module_name: str, function_name: str) -> str:
    module = sys.modules[module_name]
    functions = inspect.getmembers(module, inspect.isfunction)
    defined = [key for key, value in functions if value.__module__ == module.__name__]
    return (
        f"the module {module_name!r} has no function {function_name!r}; "
        f"it defines {', '.join(defined) or 'none'}"
    )
