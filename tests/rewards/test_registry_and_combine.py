import math
import sys

import pytest

from latentplan.rewards import (
    BUILT_IN,
    LABELLED_WEIGHTS,
    UNLABELLED_WEIGHTS,
    RewardSet,
    combine_rewards,
    get_reward,
)

NAN = math.nan


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "from math import sqrt\n\n"
        "def unique_letters(completions, **kwargs):\n"
        '    """The example of TRL\'s documentation, unchanged."""\n'
        "    return [float(len(set(text))) for text in completions]\n\n"
        "def accuracy(completions, **kwargs):\n"
        "    return [0.0 for text in completions]\n"
    )
    (tmp_path / "broken_rewards.py").write_text("import a_module_that_is_missing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("my_rewards", "broken_rewards"):
        sys.modules.pop(name, None)


def test_built_in_names():
    assert {
        "accuracy",
        "format",
        "coherence_strict",
        "coherence_paper",
        "coherence_strict_if_correct",
        "coherence_paper_if_correct",
        "coherence_natural",
        "coherence_natural_if_correct",
        "short_latents",
        "short_latents_if_solved",
        "validity",
        "grounding",
        "plan",
        "valid_chains",
    } == set(BUILT_IN)
    assert all(get_reward(name) is function for name, function in BUILT_IN.items())


def test_a_function_of_ones_own(user_module):
    reward = get_reward("my_rewards:unique_letters")
    assert reward(prompts=["", ""], completions=["abba", "abc"], answer=["1", "2"]) == [2.0, 3.0]


@pytest.mark.parametrize("name", ["acuracy", "my_rewards.unique_letters", ":f", "my_rewards:", ""])
def test_an_unknown_name_lists_the_known(name):
    with pytest.raises(ValueError, match=r"built in are accuracy, format, .*'package.module:function'"):
        get_reward(name)


def test_an_unknown_module_or_function_is_named(user_module):
    with pytest.raises(ValueError, match=r"no module 'not_there'"):
        get_reward("not_there:f")
    with pytest.raises(ValueError, match=r"no module 'my_rewards\.deeper'"):
        get_reward("my_rewards.deeper:f")
    with pytest.raises(ValueError, match=r"no function 'f'; it defines accuracy, unique_letters$"):
        get_reward("my_rewards:f")


def test_a_module_that_fails_by_itself_shows_its_own_error(user_module):
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        get_reward("broken_rewards:f")


BATCH = {
    "prompts": ["q"] * 4,
    "completions": ["### 18", "### 19", "### 18\n### 18", "### 18"],
    "answer": ["18"] * 4,
    "decoded_steps": [["<<16-3-4=9>>", "<<9*2=18>>"]] * 3 + [["<<3*3=9>>", "<<6*3=18>>"]],
}


def test_the_reward_with_labels():
    # R = 1·correct + 0.5·format + 0.1·coherence·correct. The second is wrong, though half coherent; the third
    # is right by its first marker, but has two; in the fourth, half of the steps count.
    table, totals = RewardSet(LABELLED_WEIGHTS)(**BATCH)
    assert table == [[1, 0, 1, 1], [1, 1, 0, 1], [1, 0, 1, 0.5]]
    assert totals == pytest.approx([1.6, 0.5, 1.1, 1.55])


def test_the_reward_without_labels():
    # R = 0.5·format + 1·coherence; the second has half its coherence left.
    _, totals = RewardSet(UNLABELLED_WEIGHTS)(**{**BATCH, "answer": [None] * 4})
    assert totals == pytest.approx([1.5, 1.0, 1.0, 1.0])


def test_what_does_not_apply_adds_nothing():
    totals = combine_rewards([[1.0, NAN, NAN], [0.5, 0.5, NAN]], [1.0, 2.0])
    assert totals[:2] == [2.0, 1.0]
    assert math.isnan(totals[2]), "no function applies: that is no reward, and not one of 0"
    rewards = RewardSet(["accuracy", "format"], [1.0, 0.5])
    table, totals = rewards(["", ""], ["### 9", "### 9"], answer=["9", None])
    assert table[0][0] == 1.0
    assert math.isnan(table[0][1])
    assert totals == [1.5, 0.5]
    assert rewards.metrics(table) == {
        "rewards/accuracy/mean": (1.0, 1),
        "rewards/accuracy/frac_none": (1, 2),
        "rewards/format/mean": (2.0, 2),
        "rewards/format/frac_none": (0, 2),
    }
    assert rewards.metrics([[NAN, NAN], [1.0, 0.0]]) == {
        "rewards/accuracy/mean": (0.0, 0),
        "rewards/accuracy/frac_none": (2, 2),
        "rewards/format/mean": (1.0, 2),
        "rewards/format/frac_none": (0, 2),
    }


def test_nan_is_none_and_a_reward_that_is_only_logged_is_no_reward():
    def first(completions, **kwargs):
        return [1.0, None, NAN, None]

    def logged(completions, **kwargs):
        return [5.0, 5.0, 5.0, None]

    table, totals = RewardSet([first, logged], [2.0, 0.0])([""] * 4, [""] * 4)
    assert [[math.isnan(value) for value in row] for row in table] == [
        [False, True, True, True],
        [False, False, False, True],
    ]
    assert totals[0] == 2.0
    assert all(math.isnan(total) for total in totals[1:])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.inf, "the reward 'odd' returned inf: a reward must be finite"),
        (-math.inf, "the reward 'odd' returned -inf: a reward must be finite"),
        ("good", "the reward 'odd' returned 'good': a reward must be a number"),
        ([1.0, 2.0], r"the reward 'odd' returned \[1.0, 2.0\]: a reward must be a number"),
    ],
)
def test_what_is_no_reward_is_refused_by_name(value, message):
    def odd(completions, **kwargs):
        return [1.0, value]

    with pytest.raises(ValueError, match=message):
        RewardSet(["format", odd])(["", ""], ["a", "b"])


def test_functions_of_ones_own_join_in(user_module):
    def short(completions, **kwargs):
        return [len(text) < 3 for text in completions]

    rewards = RewardSet(["format", "my_rewards:unique_letters", short])
    assert rewards.names == ["format", "unique_letters", "short"]
    assert rewards(["", ""], ["ab", "### 1"]).totals == [3.0, 1 + 3]


def test_what_a_reward_set_rejects(user_module):
    with pytest.raises(ValueError, match="3 weights for 2 rewards"):
        RewardSet(["accuracy", "format"], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="same name: accuracy, accuracy"):
        RewardSet(["accuracy", "my_rewards:accuracy"])
    with pytest.raises(ValueError, match="the weight of the reward 'format' must be finite, got inf"):
        RewardSet(["accuracy", "format"], [1.0, math.inf])
    with pytest.raises(ValueError, match="one of the two"):
        RewardSet({"accuracy": 1.0}, [1.0])


def test_a_reward_of_another_length_is_named():
    def short(completions, **kwargs):
        return [1.0]

    with pytest.raises(ValueError, match="'short' returned 1 values for 2 completions"):
        RewardSet([short])(["", ""], ["a", "b"])


def test_no_rewards_are_zero():
    assert RewardSet([])(["", ""], ["a", "b"]) == ([], [0.0, 0.0])
