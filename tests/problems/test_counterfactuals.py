"""Questions that differ in one number: those of the generator, and edits of any other text."""

import re

import pytest

from latentplan.problems.counterfactuals import (
    Counterfactual,
    counterfactuals,
    edited_question,
    generate_pairs,
)
from latentplan.problems.equations import evaluate, parse_equation
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.problem import Problem

COUNT = 60


@pytest.fixture(scope="module", params=PRESETS)
def pairs(request):
    return request.param, list(generate_pairs(PRESETS[request.param], split="test", count=COUNT, seed=3))


def differing_words(question: str, other: str) -> list[tuple[str, str]]:
    words, others = question.split(), other.split()
    return [pair for pair in zip(words, others, strict=True) if pair[0] != pair[1]]


def test_the_problems_are_those_of_generate(pairs):
    preset, found = pairs
    expected = list(generate(PRESETS[preset], split="test", count=COUNT, seed=3))
    assert [problem for problem, _ in found] == expected
    assert sum(partner is not None for _, partner in found) >= 0.9 * COUNT


def test_partners_are_right_and_differ_in_one_number_of_the_same_words(pairs):
    preset, found = pairs
    for problem, partner in found:
        if partner is None:
            continue
        last = parse_equation(partner.steps[-1])
        assert all(parse_equation(step).is_true(partner.modulus) for step in partner.steps)
        assert evaluate(partner.answer) == last.result != parse_equation(problem.steps[-1]).result
        assert partner.steps in partner.plans
        signs = [re.sub(r"[0-9.]", "", step) for step in problem.steps]
        assert signs == [re.sub(r"[0-9.]", "", step) for step in partner.steps]
        if PRESETS[preset].world == "clock":
            assert (
                1 <= len(differing_words(problem.question, partner.question)) <= 2
            )  # "times 2", "double it"


def test_clock_partner_by_hand():
    wanted = "a wheel shows 4 . first minus 3 . second add 2 . third subtract 2 . fourth times 3 . now ?"
    pairs = generate_pairs(PRESETS["quickstart"], split="test", count=1, seed=0)
    problem, partner = next(pairs)
    assert problem.question == wanted
    assert partner.question == wanted.replace("times 3", "times 2")
    assert (problem.answer, partner.answer) == ("3", "2")
    assert partner.steps == ("<<4-3=1>>", "<<1+2=3>>", "<<3-2=1>>", "<<1*2=2>>")


def test_presets_have_right_answers_and_texts_have_none():
    problems = list(generate(PRESETS["quickstart"], split="test", count=5, seed=0))
    known = counterfactuals("minigsm:quickstart", problems)
    assert all(each.answer is not None and len(each.steps) > 0 for each in known)
    others = counterfactuals("mine.jsonl", problems)
    assert all(each.answer is None and each.steps == () for each in others)
    # Not what the preset generates: the partners of other problems would be wrong.
    assert counterfactuals("minigsm:quickstart", problems[::-1])[0].answer is None


@pytest.mark.parametrize(
    "question",
    ["Ann has 3 pens and buys 40 more. How many?", "It costs $25, and 12 more.", "Tom ran 7 laps."],
)
def test_one_number_of_a_text_changes_by_up_to_a_quarter(question):
    partner = edited_question(question)
    assert partner == edited_question(question)
    before, after = (list(map(int, re.findall(r"\d+", each))) for each in (question, partner.question))
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == 1
    old, new = changed[0]
    assert 0 < abs(old - new) <= max(1, old // 4)
    assert new >= 1
    assert re.sub(r"\d+", "", question) == re.sub(r"\d+", "", partner.question)


@pytest.mark.parametrize(
    "question",
    ["Is water wet?", "It is 1 mile.", "It weighs 2.5 kg.", "At 10:30, on 12/24, a B52.", "1,000 men"],
)
def test_texts_without_a_whole_number_of_their_own_have_no_partner(question):
    assert edited_question(question) is None
    assert counterfactuals("x.jsonl", [Problem(question, (), "1")]) == [None]


def test_a_full_stop_after_a_number_is_no_decimal():
    partner = edited_question("Sam has 8.")
    assert isinstance(partner, Counterfactual)
    assert re.fullmatch(r"Sam has (6|7|9|10)\.", partner.question)
