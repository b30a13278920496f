from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.problems.problem import Problem
from latentplan.rewards import BUILT_IN
from latentplan.rewards.plan_graph import numbers_of_question
from latentplan.rewards.plan_rewards import (
    grounding,
    grounding_reward,
    plan_reward,
    validity,
    validity_reward,
)

QUESTION = "Janet has 16 eggs, eats 3, bakes with 4, and sells the rest at $2 each."


def test_validity_is_the_share_of_true_equations():
    assert validity(["<<16-3-4=9>>", "<<9*2=18>>"]) == 1
    assert validity(["<<16-3-4=9>>", "<<9*2=17>>"]) == 1 / 2
    assert validity(["<<16-3-4=9>>", "no equation", "<<9/0=1>>"]) == pytest.approx(1 / 3)
    assert validity([]) == 0


def test_validity_modulo():
    assert validity(["<<8+5=2>>", "<<2*3=6>>"]) == 1 / 2
    assert validity(["<<8+5=2>>", "<<2*3=6>>"], modulus=11) == 1


def test_a_step_with_several_equations_is_true_if_all_of_them_are():
    assert validity(["<<3+4=7>><<7*2=14>>"]) == 1
    assert validity(["<<3+4=8>><<7*2=14>>"]) == validity(["<<3+4=7>><<7*2=15>>"]) == 0
    assert validity(["<<16-3-4=9>>", "<<9*2=17>>\n<<17+1=18>>"]) == 1 / 2
    assert validity(["<<8+5=2>>\n<<2*3=6>>"]) == 0
    assert validity(["<<8+5=2>>\n<<2*3=6>>"], modulus=11) == 1


def test_grounding_is_the_share_of_steps_with_known_numbers():
    assert grounding(["<<16-3-4=9>>", "<<9*2=18>>"], QUESTION) == 1
    assert grounding(["<<16-3-5=8>>", "<<8*2=16>>"], QUESTION) == 1 / 2, "5 comes from nowhere"
    assert grounding(["<<9*2=18>>", "<<16-3-4=9>>"], QUESTION) == 1 / 2, "9 comes too late"
    assert grounding(["no equation", "<<3+4=7>>"], QUESTION) == 1 / 2
    assert grounding(["<<-3+16=13>>"], QUESTION) == 1, "a known number with the other sign"
    assert grounding(["<<100-1=99>>"], QUESTION) == 1, "the constants 1 and 100"
    assert grounding([], QUESTION) == 0


def test_a_step_with_several_equations_is_grounded_if_all_of_them_are():
    assert grounding(["<<3+4=7>><<7*2=14>>"], QUESTION) == 1, "7 is an earlier result of the same step"
    assert grounding(["<<7*2=14>><<3+4=7>>"], QUESTION) == 0, "7 comes too late"
    assert grounding(["<<16-3=13>>", "<<3+5=8>> <<8*2=16>>"], QUESTION) == 1 / 2, "5 comes from nowhere"
    assert grounding(["<<3+4=7>><<7*2=14>>", "<<14-7=7>>"], QUESTION) == 1, "both results are known"


@pytest.mark.parametrize("separator", ["", " ", "\n"])
def test_a_perfect_plan_is_perfect_with_its_rest_in_one_step(separator):
    rest = separator.join(["<<9*2=18>>", "<<18+4=22>>"])
    plans = [["<<16-3-4=9>>", rest], [separator.join(["<<16-3-4=9>>", rest])]]
    chain = ("<<16-3-4=9>>", "<<9*2=18>>", "<<18+4=22>>")
    problem = Problem(QUESTION, chain, "22", plans=(chain,))
    batch = {"prompts": [QUESTION] * 2, "completions": ["### 22"] * 2, "answer": ["22"] * 2}
    batch["problems"] = [problem] * 2
    for name, reward in BUILT_IN.items():
        # short_latents compares the trajectories of a question; the published rule reads a step's first
        # equation.
        if not name.startswith(("short_latents", "coherence_paper")):
            assert reward(**batch, decoded_steps=plans) == [1, 1], name


@pytest.mark.parametrize(
    ("question", "numbers"),
    [
        ("1,000 of 3.5", ["1000", "7/2"]),
        ("20% off", ["1/5", "20"]),
        ("3/4 of 8", ["3", "4", "3/4", "8"]),
        ("10/0", ["10", "0"]),
        ("Three and TWENTY", ["3", "20"]),
        ("forty, hundred", ["40", "100"]),
        ("twice", ["2"]),
        ("it doubles .", ["2"]),
        ("then triple it .", ["3"]),
        ("half of a dozen", ["2", "1/2", "12"]),
        ("a third, a quarter", ["3", "1/3", "4", "1/4"]),
        ("minutes", ["60"]),
        ("an hour", ["60", "24"]),
        ("a week", ["7", "52"]),
        ("tennis onerous seventh", []),
    ],
)
def test_numbers_of_question(question, numbers):
    assert numbers_of_question(question) == frozenset(map(Fraction, numbers))


def test_as_rewards():
    good, false, loose = ["<<16-3-4=9>>", "<<9*2=18>>"], ["<<16-3-4=9>>", "<<9*2=17>>"], ["<<16-3=13>>"]
    batch = {
        "prompts": [QUESTION] * 5,
        "completions": ["### 18", "### 17", "### 18", "### 18", "### 18"],
        "decoded_steps": [good, false, loose, [], None],
    }
    assert validity_reward(**batch) == [1, 1 / 2, 1, 0, None]
    assert grounding_reward(**batch) == [1, 1, 1, 0, None]
    assert plan_reward(**batch) == [1, 1 / 2, 0, 0, None]


def test_question_and_modulus_are_columns():
    batch = {"prompts": ["no number"], "completions": ["### 2"], "decoded_steps": [["<<8+5=2>>"]]}
    assert plan_reward(**batch) == [0]
    assert plan_reward(**batch, question=["starts at 8 . add 5 ."], modulus=[11]) == [1]
    assert plan_reward(**batch, question=["starts at 8 . add 5 ."], modulus=[None]) == [0]


def test_without_a_step_decoder_they_do_not_apply():
    for reward in (validity_reward, grounding_reward, plan_reward):
        assert reward(["16"], ["### 3"], answer=["3"]) == [None]


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="0123456789+-*/=<>. ", max_size=14), max_size=4),
    st.text(max_size=30),
    st.one_of(st.none(), st.integers(1, 12)),
)
def test_the_plan_score_is_at_most_each_of_its_factors(steps, question, modulus):
    batch = {"prompts": [question], "completions": ["### 3"], "decoded_steps": [steps], "modulus": [modulus]}
    (plan,) = plan_reward(**batch)
    assert 0 <= plan <= min(validity(steps, modulus), grounding(steps, question)) <= 1
