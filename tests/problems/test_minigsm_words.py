"""Word problems: every chain is true and grounded, lists are complete, families are reachable, dials hold."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import fields, replace
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.problems.equations import parse_equation
from latentplan.problems.minigsm import PRESETS, MinigsmConfig, generate
from latentplan.problems.minigsm.number_kinds import CONSTANTS
from latentplan.problems.minigsm.presets import SPLITS, split_of
from latentplan.problems.minigsm.solution_chains import MAX_PLANS, PlanTable
from latentplan.problems.minigsm.theme_files import story_templates
from latentplan.problems.minigsm.word_problems import WordDomain
from latentplan.problems.problem import Chain, Problem

WORD_PRESETS = [name for name, config in PRESETS.items() if config.world == "words"]
DEFAULT = PRESETS["default"]


def sample(config=DEFAULT, split="train", count=100, seed=0, **dials) -> list[Problem]:
    return list(generate(replace(config, **dials), split=split, count=count, seed=seed))


def grounds(question: str) -> set[Fraction]:
    """The numbers of a question, in digits or in words."""
    numbers = {Fraction(digits) for digits in re.findall(r"\d+(?:\.\d+)?", question)}
    words = set(re.findall(r"[a-z]+|%", question.lower()))
    return numbers | {Fraction(value) for value, told in CONSTANTS.items() if words & set(told)}


def check_chain(problem: Problem, chain: Chain) -> None:
    known = grounds(problem.question)
    for step in chain:
        equation = parse_equation(step)
        assert equation is not None, step
        assert equation.is_true(), step
        assert set(equation.operands) <= known, (problem.question, chain, step)
        assert equation.result > 0
        known.add(equation.result)
    assert equation.result == Fraction(problem.answer)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), preset=st.sampled_from(WORD_PRESETS), split=st.sampled_from(SPLITS))
def test_every_plan_is_true_grounded_and_ends_in_the_answer(seed, preset, split):
    config = PRESETS[preset]
    for problem in sample(config, split, 12, seed):
        assert config.min_steps <= len(problem.steps) <= config.max_steps
        assert problem.steps in problem.plans
        assert len(set(problem.plans)) == len(problem.plans) <= MAX_PLANS
        assert problem.modulus is None
        for plan in problem.plans:
            check_chain(problem, plan)
        numbers = [number for step in problem.steps for number in parse_equation(step).operands]
        assert max(numbers) <= config.max_number
        assert config.decimals or all(number.denominator == 1 for number in numbers)


@settings(max_examples=20, deadline=None)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=3, max_size=3), preset=st.sampled_from(WORD_PRESETS))
def test_no_problem_is_in_two_splits_whatever_the_seeds(seeds, preset):
    plans = [
        {plan for problem in sample(PRESETS[preset], split, 20, seed) for plan in problem.plans}
        for split, seed in zip(SPLITS, seeds, strict=True)
    ]
    assert not plans[0] & plans[1] | plans[0] & plans[2] | plans[1] & plans[2]


def test_the_shares_of_the_splits():
    counts = Counter(split_of(f"problem {number}") for number in range(10_000))
    assert 8300 < counts["train"] < 8700
    assert 400 < counts["validation"] < 600
    assert 850 < counts["test"] < 1150


@pytest.mark.parametrize("preset", WORD_PRESETS)
def test_equal_seeds_give_equal_problems_and_no_question_twice(preset):
    problems = sample(PRESETS[preset], count=300, seed=5)
    assert problems == sample(PRESETS[preset], count=300, seed=5)
    assert problems != sample(PRESETS[preset], count=300, seed=6)
    assert len({problem.key for problem in problems}) == 300


def test_distinct_problems_have_distinct_graphs_or_numbers():
    problems = sample(distinct="problem", count=400, min_steps=3)
    assert len({frozenset(problem.plans) for problem in problems}) == 400


def test_there_are_at_least_forty_families_and_each_is_reachable():
    assert len(story_templates()) >= 40
    for name in story_templates():
        config = replace(DEFAULT, families=(name,), min_steps=3, max_steps=3)
        assert len(sample(config, count=2)) == 2, name


@cache
def _world() -> WordDomain:
    return WordDomain(replace(DEFAULT, max_steps=8))


@pytest.mark.parametrize("name", story_templates())
def test_every_part_of_a_family_is_used(name):
    shapes = [shape for fitting in _world().shapes.values() for family in fitting for shape in family]
    used = {part for shape in shapes if shape.template.name == name for part in shape.parts}
    assert [part.text for part in story_templates()[name].parts if part not in used] == []


def test_every_number_of_steps_has_many_families():
    for length, families in _world().shapes.items():
        assert len(families) >= (15 if length == 8 else 30), length


def test_questions_read_like_text():
    for problem in sample(PRESETS["hard"], count=400):
        assert not re.search(r"[{}]|  |\s[.,?]|\.\.|None|\b1 [a-z]+s\b", problem.question), problem.question
        assert problem.question[0].isupper()
        assert problem.question.endswith("?")
        assert all(sentence[0].isupper() for sentence in re.split(r"(?<=[.?]) ", problem.question))


def chains_of(graph, values) -> set[Chain]:
    return set(PlanTable((graph,), frozenset(), "+-*/%").chains(values, 1000))


def test_the_plans_of_a_sum_are_all_its_groupings():
    graph = ("+", ((1, "a"), (-1, "b"), (-1, "c")))
    assert chains_of(graph, {"a": 16, "b": 3, "c": 4}) == {
        ("<<16-3=13>>", "<<13-4=9>>"),
        ("<<16-4=12>>", "<<12-3=9>>"),
        ("<<3+4=7>>", "<<16-7=9>>"),
        ("<<16-3-4=9>>",),
    }


def test_a_plan_never_goes_below_one():
    graph = ("+", ((1, "a"), (1, "b"), (-1, "c")))
    assert chains_of(graph, {"a": 5, "b": 6, "c": 8}) == {
        ("<<5+6=11>>", "<<11-8=3>>"),
        ("<<8-5=3>>", "<<6-3=3>>"),
        ("<<8-6=2>>", "<<5-2=3>>"),
        ("<<5+6-8=3>>",),
    }


def test_a_quantity_used_twice_is_computed_once():
    double = ("*", ("a", 2))
    graph = ("+", ((1, double), (1, ("+", ((1, double), (1, "c"))))))
    plans = chains_of(graph, {"a": 3, "c": 4})
    assert ("<<3*2=6>>", "<<6+4=10>>", "<<6+10=16>>") in plans
    assert all(sum(step == "<<3*2=6>>" for step in plan) == 1 for plan in plans)


def test_steps_that_do_not_need_each_other_come_in_any_order():
    graph = ("+", ((1, ("*", ("a", "b"))), (1, ("*", ("c", "d")))))
    plans = chains_of(graph, {"a": 2, "b": 3, "c": 4, "d": 5})
    assert plans == {
        ("<<2*3=6>>", "<<4*5=20>>", "<<6+20=26>>"),
        ("<<4*5=20>>", "<<2*3=6>>", "<<6+20=26>>"),
    }


def test_declared_decompositions_are_plans():
    tickets = sample(families=("train_tickets",), min_steps=3, max_steps=3, count=30)
    lengths = [{len(plan) for plan in problem.plans} for problem in tickets]
    assert {2, 3} in lengths


def test_a_list_shorter_than_the_cap_is_complete():
    problems = sample(PRESETS["hard"], count=300)
    assert any(len(problem.plans) == MAX_PLANS for problem in problems)
    for problem in problems:
        if len(problem.plans) < MAX_PLANS:
            reordered = {plan for plan in map(swap_first, problem.plans) if are_independent(plan)}
            assert reordered <= set(problem.plans)


def swap_first(plan: Chain) -> Chain:
    return (*plan[1::-1], *plan[2:])


def are_independent(plan: Chain) -> bool:
    first, second = parse_equation(plan[1]), parse_equation(plan[0])
    return first.result not in second.operands


def test_told_labels_follow_the_story():
    told = sample(label="told", families=("egg_farm",), min_steps=3, max_steps=3, count=20)
    assert all(problem.steps == problem.plans[0] or len(problem.plans[0]) > 3 for problem in told)
    assert sum(problem.steps == problem.plans[0] for problem in told) > 10
    labels = {sample(count=40, seed=seed, min_steps=4)[3].steps for seed in range(3)}
    assert len(labels) == 3


def test_the_operators_dial_holds_for_every_plan():
    for problem in sample(operators="+-", percentages=False, count=100, max_steps=2):
        assert not re.search(r"[*/]", " ".join(step for plan in problem.plans for step in plan))
    for problem in sample(percentages=False, count=200):
        assert "%" not in problem.question


def test_decimals_distractors_and_sizes():
    with_cents = sample(decimals=True, count=200)
    assert sum("." in problem.answer for problem in with_cents) > 10
    assert all(len(problem.answer.partition(".")[2]) <= 2 for problem in with_cents)
    plain, distracted = sample(count=200), sample(distractors=2, count=200)
    assert sum(len(p.question) for p in distracted) > sum(len(p.question) for p in plain) + 200 * 20
    assert max(float(p.answer) for p in sample(max_number=50, count=200)) <= 50


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"world": "numbers"}, "world is"),
        ({"distinct": "nothing"}, "distinct is"),
        ({"label": "first"}, "label is"),
        ({"number_scale": 0}, "number_scale is"),
        ({"max_number": 5}, "max_number is"),
        ({"operators": "+^"}, "operators is"),
        ({"distractors": 4}, "distractors is"),
        ({"families": ("nonsense",)}, "families is .* known are"),
        ({"families": ("hike",), "min_steps": 8, "max_steps": 8}, "no family has problems of 8"),
    ],
)
def test_a_bad_dial_is_named(dials, message):
    with pytest.raises(ValueError, match=message):
        sample(**dials)


def test_every_dial_has_a_help_text_and_problems_survive_json():
    assert all(dial.metadata["help"] for dial in fields(MinigsmConfig))
    for problem in sample(count=20):
        assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem
