"""Rewards by name, and several rewards as one: a table of what each function said, and the weighted sum.

    rewards = RewardSet(LABELLED_WEIGHTS)
    table, totals = rewards(prompts, completions, answer=answers, decoded_steps=decoded_steps)

ATP-Latent's reward (arXiv:2601.21598) is R = 1·correct + 0.5·format + 0.1·coherence·correct; without labels
it is R = 0.5·format + 1·coherence. The product is the reward `coherence_strict_if_correct`, so both are plain
sums.

The rewards by name: those of this folder, found in its files, and the user's own as
`package.module:function`.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from latentplan.common.plugins import import_named, modules_of, names_own_code, settings_from
from latentplan.rewards.contract import Reward, settings_kind


def _find_rewards() -> dict[str, Reward]:
    """Returns every named reward of this folder, in the order of the files.

    Raises:
        ValueError: two have one name; says where.
    """
    found: dict[str, Reward] = {}
    for module in modules_of("latentplan.rewards"):
        for member in list(vars(module).values()):
            name = getattr(member, "reward_name", None)
            if name is None or member.__module__ != module.__name__:
                continue
            first = found.setdefault(name, member)
            if first is not member:
                raise ValueError(
                    f"two rewards are called {name!r}: in {first.__module__} and in {module.__name__}"
                )
    return found


BUILT_IN: Mapping[str, Reward] = _find_rewards()
"""Every reward that has a name of its own."""


def get_reward(name: str) -> Reward:
    """Returns the reward with this name: one of `BUILT_IN`, or `package.module:function`.

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


LABELLED_WEIGHTS: dict[str, float] = {"accuracy": 1.0, "format": 0.5, "coherence_strict_if_correct": 0.1}
"""ATP-Latent's reward, with the strict coherence."""
UNLABELLED_WEIGHTS: dict[str, float] = {"format": 0.5, "coherence_strict": 1.0}
"""ATP-Latent's coherence-only reward, for questions without answers."""


class Rewarded(NamedTuple):
    """What a `RewardSet` says of a batch.

    Attributes:
        table: `[functions, trajectories]`, before weighting; NaN where a function does not apply.
        totals: `[trajectories]`, the weighted sums; NaN where no function applies.
    """

    table: list[list[float]]
    totals: list[float]


class RewardSet:
    """Weighted reward functions, called together.

    Args:
        names: built-in names, `package.module:function`, or functions; or a mapping from those to weights.
        weights: one per name; 1.0 each by default.
        settings: those of rewards that have settings, by the name in `names` (of a function its own name).

    Raises:
        ValueError: there is no such reward, two have one name, there are more or fewer weights than rewards,
            a weight is not finite, or settings are of no reward here, of one without settings, or wrong.
    """

    def __init__(
        self,
        names: Sequence[str | Reward] | Mapping[str, float],
        weights: Sequence[float] | None = None,
        settings: Mapping[str, Mapping[str, Any] | None] | None = None,
    ):
        if isinstance(names, Mapping):
            if weights is not None:
                raise ValueError("the weights come with the names already; give one of the two")
            weights, names = list(names.values()), list(names)
        self.functions = _with_settings(names, settings or {})
        self.names = [_short_name(name) for name in names]
        self.weights = [1.0] * len(self.names) if weights is None else list(weights)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"two rewards have the same name: {', '.join(self.names)}")
        if len(self.weights) != len(self.names):
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.names)} rewards ({', '.join(self.names)})"
            )
        for name, weight in zip(self.names, self.weights, strict=True):
            if not math.isfinite(weight):
                raise ValueError(f"the weight of the reward {name!r} must be finite, got {weight}")

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Rewarded:
        """Returns the rewards of a batch; `columns` have one entry per trajectory and reach every function.

        Raises:
            ValueError: a function returned another number of rewards than there are completions, an infinite
                one, or one that is no number; names the function.
        """
        table = [
            _row(name, function(prompts=prompts, completions=completions, **columns), len(completions))
            for name, function in zip(self.names, self.functions, strict=True)
        ]
        return Rewarded(table, combine_rewards(table, self.weights) if table else [0.0] * len(completions))

    def metrics(self, table: Sequence[Sequence[float]]) -> dict[str, tuple[float, int]]:
        """Returns each reward over the trajectories of a rollout, before weighting: the sum, and of how many.

        `rewards/{name}/mean` is over those that it applies to, `rewards/{name}/frac_none` counts the others
        among all.
        """
        found: dict[str, tuple[float, int]] = {}
        for name, row in zip(self.names, table, strict=True):
            applicable = [value for value in row if not math.isnan(value)]
            found[f"rewards/{name}/mean"] = math.fsum(applicable), len(applicable)
            found[f"rewards/{name}/frac_none"] = float(len(row) - len(applicable)), len(row)
        return found


def _with_settings(
    names: Sequence[str | Reward], settings: Mapping[str, Mapping[str, Any] | None]
) -> list[Reward]:
    rewards: dict[str, Reward] = {}
    for each in names:
        if isinstance(each, str):
            rewards[each] = get_reward(each)
        else:
            rewards[_short_name(each)] = each
    for name, values in settings.items():
        if name not in rewards:
            raise ValueError(
                f"reward_settings has settings of {name!r}, which is none of the rewards {', '.join(rewards)}"
            )
        kind = settings_kind(rewards[name])
        if kind is None:
            raise ValueError(f"reward_settings: the reward {name!r} has no settings")
        if not isinstance(values, Mapping | None):
            raise ValueError(f"reward_settings: those of {name!r} must be a mapping, got {values!r}")
        rewards[name] = partial(rewards[name], settings=settings_from(kind, values, f"reward {name}"))
    return list(rewards.values())


def combine_rewards(table: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """Returns the weighted sum over functions, `[functions, trajectories]` to `[trajectories]`.

    As in TRL 1.16 a NaN adds nothing, and a trajectory to which no function applies has no reward: NaN. A
    function of weight 0, which is there to be logged, gives none.
    """
    return [_weighted_sum(values, weights) for values in zip(*table, strict=True)]


def _weighted_sum(values: Sequence[float], weights: Sequence[float]) -> float:
    terms = [
        weight * value
        for weight, value in zip(weights, values, strict=True)
        if weight and not math.isnan(value)
    ]
    return math.fsum(terms) if terms else math.nan


def _row(name: str, rewards: Sequence[float | None], num_completions: int) -> list[float]:
    if len(rewards) != num_completions:
        raise ValueError(
            f"the reward {name!r} returned {len(rewards)} values for {num_completions} completions; "
            "it must return one per completion, None where it does not apply"
        )
    return [math.nan if reward is None else _number(name, reward) for reward in rewards]


def _number(name: str, reward: Any) -> float:
    try:
        number = float(reward)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"the reward {name!r} returned {reward!r}: a reward must be a number, or None where it does not "
            "apply"
        ) from None
    if math.isinf(number):
        raise ValueError(
            f"the reward {name!r} returned {number}: a reward must be finite, or None where it does not apply"
        )
    return number


def _short_name(name: str | Reward) -> str:
    return name.rpartition(":")[2] if isinstance(name, str) else getattr(name, "__name__", repr(name))
