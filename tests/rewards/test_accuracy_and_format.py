import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.rewards.answer_rewards import accuracy, format_reward, is_well_formed, when_correct
from latentplan.rewards.contract import product


def test_accuracy():
    completions = ["### 9", "<<16-3-4=9>> ### 9.0", "### 10", "9", "", "### 9"]
    answers = ["9", "9", "9", "9", "9", None]
    assert accuracy([""] * 6, completions, answer=answers, other="ignored") == [1.0, 1.0, 0.0, 0.0, 0.0, None]


def test_accuracy_without_references_does_not_apply():
    assert accuracy(["", ""], ["### 9", "9"]) == [None, None]


@pytest.mark.parametrize(
    ("completion", "well_formed"),
    [
        ("### 9", True),
        ("<<16-3-4=9>> ### 9", True),
        ("### -1,080.50", True),
        ("### yes", True),
        ("9", False),
        ("", False),
        ("###", False),
        ("###  ", False),
        ("### .", False),
        ("### 9 ### 9", False),
        ("### 9\n### 10", False),
        (r"\boxed{9}", False),
    ],
)
def test_format(completion, well_formed):
    assert is_well_formed(completion) is well_formed
    assert format_reward([""], [completion]) == [float(well_formed)]


def test_format_asks_for_the_end_where_it_is_known():
    completions = ["### 9", "### 9", "### 9"]
    assert format_reward([""] * 3, completions, finished=[True, False, None]) == [1.0, 0.0, 1.0]


def half(prompts, completions, **kwargs):
    return [0.5, None, 0.5, 0.5]


def test_when_correct_multiplies_by_accuracy():
    reward = when_correct(half)
    completions = ["### 9", "### 9", "### 8", "### 9"]
    assert reward([""] * 4, completions, answer=["9", "9", "9", None]) == [0.5, None, 0.0, None]
    assert reward.__name__ == "half_if_correct"


def test_product_does_not_apply_where_a_factor_does_not():
    assert product([0.5, None, 1.0], [0.5, 1.0, None]) == [0.25, None, None]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="# 0123456789.-\nab", max_size=20), max_size=5))
def test_every_text_gets_zero_or_one(completions):
    prompts = [""] * len(completions)
    assert set(accuracy(prompts, completions, answer=["9"] * len(completions))) <= {0.0, 1.0}
    assert set(format_reward(prompts, completions)) <= {0.0, 1.0}
