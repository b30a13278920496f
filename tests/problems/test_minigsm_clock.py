"""The clock world: true chains, all and only the valid plans, a small vocabulary, disjoint splits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.problems.minigsm import PRESETS, SpaceExhaustedError, generate
from latentplan.problems.minigsm.clock import MAX_PLANS, ClockDraft
from latentplan.problems.minigsm.presets import SPLITS
from latentplan.problems.problem import Chain, Problem

CLOCK = PRESETS["clock"]
STEP = re.compile(r"<<(\d+)([+*-])(\d+)=(\d+)>>")
SPOKEN = {"doubles": "2", "double": "2", "doubled": "2", "triples": "3", "triple": "3", "tripled": "3"}


def sample(split="train", count=200, seed=0, **dials) -> list[Problem]:
    return list(generate(replace(CLOCK, **dials), split=split, count=count, seed=seed))


def check_chain(problem: Problem, chain: Chain) -> None:
    told = [SPOKEN.get(word, word) for word in problem.question.split()]
    numbers = [word for word in told if word.isdigit()]
    value = numbers.pop(0)
    for step in chain:
        left, sign, right, result = STEP.fullmatch(step).groups()
        assert left == value
        numbers.remove(right)
        a, b = int(left), int(right)
        assert int(result) == {"+": a + b, "-": a - b, "*": a * b}[sign] % problem.modulus
        value = result
    assert numbers == []
    assert value == problem.answer


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**9), split=st.sampled_from(SPLITS), modulus=st.integers(4, 30))
def test_every_plan_is_true_grounded_and_ends_in_the_answer(seed, split, modulus):
    for problem in sample(split, 20, seed, modulus=modulus, min_steps=2):
        assert problem.modulus == modulus
        assert problem.steps in problem.plans
        assert len(set(problem.plans)) == len(problem.plans)
        for plan in problem.plans:
            check_chain(problem, plan)


def test_plans_are_the_orders_of_commuting_runs():
    strict = ClockDraft(7, (("+", 3), ("*", 2), ("-", 1)), 11)
    assert strict.plans() == (("<<7+3=10>>", "<<10*2=9>>", "<<9-1=8>>"),)
    swappable = ClockDraft(7, (("+", 3), ("-", 1), ("*", 2)), 11)
    assert set(swappable.plans()) == {
        ("<<7+3=10>>", "<<10-1=9>>", "<<9*2=7>>"),
        ("<<7-1=6>>", "<<6+3=9>>", "<<9*2=7>>"),
    }
    swapped = ClockDraft(7, (("-", 1), ("+", 3), ("*", 2)), 11)
    assert swapped.canonical == swappable.canonical != strict.canonical


def test_plans_are_capped_and_keep_the_told_chain():
    draft = ClockDraft(0, tuple(("+", n) for n in range(1, 9)), 11)
    plans = draft.plans()
    assert len(plans) == MAX_PLANS
    assert plans[0][0] == "<<0+1=1>>"


def test_the_numbers_of_steps_follow_the_weights():
    problems = sample(count=600, step_weights=(0, 1, 0, 2))
    counts = [len(problem.steps) for problem in problems]
    assert set(counts) == {2, 4}
    assert 300 < counts.count(4) < 500


def test_the_vocabulary_is_small_and_the_questions_short():
    problems = sample(count=3000)
    words = {word for problem in problems for word in problem.question.split()}
    signs = {"<<", ">>", "+", "-", "*", "="}
    assert len(words | signs) <= 60
    assert max(len(problem.question.split()) for problem in problems) <= 9 + 7 * 4


def test_splits_share_no_problem_but_all_hold_short_ones():
    told = {split: {p.steps for p in sample(split, 300, max_steps=2)} for split in SPLITS}
    assert not told["train"] & told["test"]
    assert not told["train"] & told["validation"]
    assert not told["validation"] & told["test"]
    assert all(len({steps for steps in chains if len(steps) == 1}) >= 5 for chains in told.values())


def test_questions_do_not_repeat_and_the_seed_decides():
    problems = sample(count=2000)
    assert len({problem.question for problem in problems}) == 2000
    assert problems == sample(count=2000)
    assert problems != sample(count=2000, seed=1)


def test_an_exhausted_split_says_how_many_there_are():
    with pytest.raises(SpaceExhaustedError, match=r"test split has only 10 distinct problems of 1 step"):
        sample("test", 11, max_steps=1, distinct="problem")


@pytest.mark.parametrize(
    ("dials", "named"),
    [
        ({"modulus": 1}, "modulus"),
        ({"max_addend": 11}, "max_addend"),
        ({"multipliers": (1,)}, "multipliers"),
        ({"min_steps": 0}, "min_steps"),
        ({"max_steps": 9}, "max_steps"),
        ({"step_weights": (1.0,)}, "step_weights"),
    ],
)
def test_a_bad_dial_is_named(dials, named):
    with pytest.raises(ValueError, match=f"{named} is"):
        replace(CLOCK, **dials)


def test_a_bad_split_or_count_is_refused_at_once():
    with pytest.raises(ValueError, match="split is 'dev'"):
        generate(CLOCK, split="dev", count=1, seed=0)
    with pytest.raises(ValueError, match="count is -1"):
        generate(CLOCK, split="train", count=-1, seed=0)
