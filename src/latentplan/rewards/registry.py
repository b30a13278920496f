"""Rewards by name: the built-in ones, and the user's own as `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

from latentplan.rewards.accuracy import accuracy, when_correct
from latentplan.rewards.coherence import coherence_paper, coherence_strict
from latentplan.rewards.contract import Reward
from latentplan.rewards.format import format_reward
from latentplan.rewards.plan import grounding_reward, plan_reward, validity_reward

BUILT_IN: dict[str, Reward] = {
    "accuracy": accuracy,
    "format": format_reward,
    "coherence_strict": coherence_strict,
    "coherence_paper": coherence_paper,
    "coherence_strict_if_correct": when_correct(coherence_strict),
    "coherence_paper_if_correct": when_correct(coherence_paper),
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
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise ValueError(
            f"there is no reward {name!r}: built in are {', '.join(BUILT_IN)}; name your own function as "
            "'package.module:function'"
        )
    return _function_of(_import(module_name, name), function_name)


def _import(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is found, but imports another that is not, has a mistake of its own to show.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"the reward {name!r} cannot be loaded: there is no module {error.name!r} on the Python path; "
            "run from the folder that holds it, or install it"
        ) from error


def _function_of(module: ModuleType, function_name: str) -> Reward:
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = inspect.getmembers(module, inspect.isfunction)
        defined = [key for key, value in functions if value.__module__ == module.__name__]
        raise ValueError(
            f"the module {module.__name__!r} has no function {function_name!r}; "
            f"it defines {', '.join(defined) or 'none'}"
        )
    return function
