"""Settings of single rewards, and how the rewards of the folder are found."""

import sys
from types import ModuleType

import pytest

from latentplan.rewards import BUILT_IN, RewardSet, reward_set
from latentplan.rewards.contract import named_reward, settings_kind

SHORT = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Short:
    most: int = 3
    value: float = 1.0

def short(completions, settings=Short(), **kwargs):
    """`value` for at most `most` characters."""
    return [settings.value if len(text) <= settings.most else 0.0 for text in completions]

def other(completions, **kwargs):
    return [0.5 for _ in completions]
'''


@pytest.fixture
def rewards(tmp_path, monkeypatch):
    (tmp_path / "rewards_with_settings.py").write_text(SHORT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "rewards_with_settings"
    sys.modules.pop("rewards_with_settings", None)


def test_a_reward_has_its_defaults_until_its_settings_are_given(rewards):
    name, texts = f"{rewards}:short", ["abc", "abcde"]
    assert RewardSet([name])(["", ""], texts).totals == [1.0, 0.0]
    assert RewardSet([name], settings={name: None})(["", ""], texts).totals == [1.0, 0.0]
    changed = RewardSet([name, "format"], settings={name: {"most": 5, "value": 2}})
    assert changed(["", ""], texts).table[0] == [2.0, 2.0]
    assert changed.names == ["short", "format"]


def test_a_function_has_settings_by_its_own_name(rewards):
    short = __import__(rewards).short
    assert RewardSet([short], settings={"short": {"most": 5}})([""], ["abcde"]).totals == [1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": {}}, r"has settings of 'format', which is none of the rewards .*:short, .*:other"),
        ({"short": {"most": 1}}, "has settings of 'short', which is none of the rewards"),
        ({"{}:other": {"most": 1}}, "the reward '.*:other' has no settings"),
        ({"{}:short": {"least": 1}}, "reward .*:short has no setting 'least': its settings are most, value"),
        ({"{}:short": {"most": "1"}}, "most of reward .*:short must be int, got '1'"),
        ({"{}:short": 3}, "those of '.*:short' must be a mapping, got 3"),
    ],
)
def test_settings_that_belong_to_nothing_are_refused_by_name(rewards, settings, message):
    settings = {name.format(rewards): values for name, values in settings.items()}
    with pytest.raises(ValueError, match=message):
        RewardSet([f"{rewards}:short", f"{rewards}:other"], settings=settings)


def test_a_default_that_is_no_dataclass_is_no_setting():
    assert settings_kind(lambda completions, settings=None: []) is None
    assert settings_kind(lambda completions, settings: []) is None
    assert settings_kind(max) is None


def test_every_named_reward_of_the_folder_is_found():
    assert all(reward.reward_name == name for name, reward in BUILT_IN.items())
    assert {reward.__module__.rpartition(".")[0] for reward in BUILT_IN.values()} == {"latentplan.rewards"}


def test_two_rewards_of_one_name_are_refused(monkeypatch):
    modules = [ModuleType("first"), ModuleType("second")]
    for module in modules:
        exec("def mine(completions, **kwargs): return []", vars(module))
        named_reward("mine")(module.mine)
    modules[1].imported = modules[0].mine
    monkeypatch.setattr(reward_set, "modules_of", lambda package: modules)
    with pytest.raises(ValueError, match="two rewards are called 'mine': in first and in second"):
        reward_set._find_rewards()
    del modules[1].mine
    assert reward_set._find_rewards() == {"mine": modules[0].mine}
