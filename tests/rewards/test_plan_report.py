import pytest

from latentplan.rewards.plan_report import Link, links, read_plan
from latentplan.rewards.plan_rewards import strict_coherence

QUESTION = "a dial shows 7 . add 3 . double it . reading ?"


def test_sound_plan_is_true_grounded_and_linked():
    plan = read_plan(["<<7+3=10>>", "<<10*2=20>>"], "20", QUESTION)
    assert [(step.true, step.grounded, step.used, step.notes) for step in plan.steps] == [
        (True, True, True, ())
    ] * 2
    assert plan.links == (Link(0, 1, "10"), Link(1, None, "20"))
    assert plan.scores == {
        "coherence": 1,
        "coherence_paper": 1,
        "validity": 1,
        "grounding": 1,
        "plan": 1,
    }


def test_every_flaw_is_named():
    plan = read_plan(["<<7+3=9>>", "gibberish=", "<<8*5=41>>"], "20", QUESTION, modulus=11)
    assert [step.notes for step in plan.steps] == [
        ("false: it is 10 modulo 11", "result not used"),
        ("not an equation",),
        ("false: it is 7 modulo 11", "8 and 5 come from nowhere", "result not used"),
    ]
    assert [step.true for step in plan.steps] == [False, None, False]
    assert plan.links == ()
    assert plan.scores["plan"] == 0


def test_result_of_a_step_may_be_used_again_and_again():
    steps = ["<<7-3=4>>", "<<4+2=6>>", "<<6*4=24>>"]
    assert links(steps, "24") == [Link(0, 1, "4"), Link(0, 2, "4"), Link(1, 2, "6"), Link(2, None, "24")]


def test_equation_within_the_same_step_makes_no_link():
    plan = read_plan(["<<7+3=10>><<10*2=20>>"], "20", QUESTION)
    assert plan.links == (Link(0, None, "20"),)
    assert plan.steps[0].used


@pytest.mark.parametrize("answer", ["20", "21", None])
@pytest.mark.parametrize(
    "steps",
    [
        ["<<7+3=10>>", "<<10*2=20>>"],
        ["<<7+3=10>>", "<<5*4=20>>", "nothing=at all"],
        ["<<7+3=10>>", "<<7+3=10>>", "<<10*2=20>>"],
        [],
    ],
)
def test_steps_marked_as_used_are_those_that_the_strict_coherence_counts(steps, answer):
    plan = read_plan(steps, answer, QUESTION)
    used = sum(bool(step.used) for step in plan.steps)
    assert used / max(1, len(steps)) == strict_coherence(steps, answer)
    assert {link.start for link in plan.links} == {i for i, step in enumerate(plan.steps) if step.used}


def test_plan_in_sentences_is_read_as_sentences():
    question = "Every terp is a brim. Every brim is a lem. Tom is a terp. Is Tom a lem or a dax?"
    steps = ["Tom is a terp.", "Every terp is a brim.", "Every brim is a lem."]
    plan = read_plan(steps, "Tom is a lem.", question)
    assert plan.scores == {"coherence_natural": 1}
    assert [(link.start, link.end) for link in plan.links] == [(0, 1), (1, 2), (2, None)]
    assert all(step.true is None and step.score == 1 and step.notes == () for step in plan.steps)
    repeated = read_plan([steps[0], steps[0]], "Tom is a lem.", question)
    assert repeated.steps[1].notes == ("repeats an earlier step",)


def test_unreadable_equations_are_not_taken_for_sentences():
    assert read_plan(["<<7+=>>"], "7", QUESTION).steps[0].notes == ("not an equation",)
