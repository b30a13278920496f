"""The rewards of CONTRIBUTING.md and docs/rl.md work as their pages say."""

import re
import sys
from pathlib import Path

import pytest
import yaml

import latentplan.rewards
from latentplan.problems.problem import Problem
from latentplan.rewards import RewardSet, get_reward
from latentplan.rewards.reward_set import _find_rewards

ROOT = Path(__file__).parents[2]
PROBLEM = Problem("a dial shows 8 . add 5 .", ("<<8+5=2>>",), "2", modulus=11)
PLANS = [["<<8+5=2>>", "<<2*3=6>>"], ["<<8+5=3>>"], None]
BATCH = {"prompts": [""] * 3, "completions": [""] * 3, "decoded_steps": PLANS, "problems": [PROBLEM] * 3}


def block(document: str, language: str, containing: str) -> str:
    text = (ROOT / document).read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return next(code for code in found if containing in code)


@pytest.fixture
def my_rewards(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(block("docs/rl.md", "python", "def true_steps"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_rewards", "latentplan.rewards.my_rewards"):
        sys.modules.pop(name, None)


def test_reward_of_contributing_counts_steps():
    namespace: dict = {}
    exec(block("CONTRIBUTING.md", "python", "def short_plan"), namespace)
    plans = [["<<1+1=2>>"], ["<<1+1=2>>"] * 4, None]
    assert namespace["short_plan"]([""] * 3, [""] * 3, decoded_steps=plans) == [1.0, 0.0, None]
    assert namespace["short_plan"]([""], [""]) == [None]


def test_reward_of_ones_own_has_the_settings_of_the_recipe(my_rewards):
    assert get_reward("my_rewards:true_steps")(**BATCH) == [2 / 3, 0, None]
    recipe = yaml.safe_load(block("docs/rl.md", "yaml", "my_rewards:true_steps"))
    rewards = RewardSet(recipe["reward_funcs"], settings=recipe["reward_settings"])
    assert rewards(**BATCH, answer=["2"] * 3).table[1][:2] == [2 / 5, 0]


def test_a_file_in_the_folder_is_all_that_a_shipped_reward_needs(my_rewards, monkeypatch):
    monkeypatch.setattr(latentplan.rewards, "__path__", [*latentplan.rewards.__path__, str(my_rewards)])
    found = _find_rewards()
    assert found["true_steps"](**BATCH) == [2 / 3, 0, None]
    assert set(found) - {"true_steps"} == set(latentplan.rewards.BUILT_IN)


def test_settings_of_the_page_are_those_of_valid_chains():
    recipe = yaml.safe_load(block("docs/rl.md", "yaml", "valid_chains: {"))
    plan = ["<<10*2=20>>", "<<7+3=10>>", "no"]
    known = Problem("q", ("<<7+3=10>>", "<<10*2=20>>"), "20", plans=(("<<7+3=10>>", "<<10*2=20>>"),))
    rewards = RewardSet(recipe["reward_funcs"], settings=recipe["reward_settings"])
    table, _ = rewards(["q"], ["### 20"], answer=["20"], problems=[known], decoded_steps=[plan])
    assert table == [[1.0], [1 - 0.1]]
