import pytest

from latentplan.rewards.plan_graph import PlanGraph
from latentplan.rewards.plan_report import Link, Step, links, marked_sentences, marked_steps, read_plan
from latentplan.rewards.plan_rewards import strict_coherence

QUESTION = "a dial shows 7 . add 3 . double it . reading ?"


def test_sound_plan_is_true_grounded_and_linked():
    plan = read_plan(PlanGraph(["<<7+3=10>>", "<<10*2=20>>"], QUESTION, "20"))
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
    plan = read_plan(PlanGraph(["<<7+3=9>>", "gibberish=", "<<8*5=41>>"], QUESTION, "20", modulus=11))
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
    assert links(PlanGraph(steps, QUESTION, "24")) == [
        Link(0, 1, "4"),
        Link(0, 2, "4"),
        Link(1, 2, "6"),
        Link(2, None, "24"),
    ]


def test_equation_within_the_same_step_makes_no_link():
    plan = read_plan(PlanGraph(["<<7+3=10>><<10*2=20>>"], QUESTION, "20"))
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
    plan = read_plan(PlanGraph(steps, QUESTION, answer))
    used = sum(bool(step.used) for step in plan.steps)
    assert used / max(1, len(steps)) == strict_coherence(steps, answer)
    assert {link.start for link in plan.links} == {i for i, step in enumerate(plan.steps) if step.used}


def test_plan_in_sentences_is_read_as_sentences():
    question = "Every terp is a brim. Every brim is a lem. Tom is a terp. Is Tom a lem or a dax?"
    steps = ["Tom is a terp.", "Every terp is a brim.", "Every brim is a lem."]
    plan = read_plan(PlanGraph(steps, question, "Tom is a lem."))
    assert plan.scores == {"coherence_natural": 1}
    assert [(link.start, link.end) for link in plan.links] == [(0, 1), (1, 2), (2, None)]
    assert all(step.true is None and step.score == 1 and step.notes == () for step in plan.steps)
    repeated = read_plan(PlanGraph([steps[0], steps[0]], question, "Tom is a lem."))
    assert repeated.steps[1].notes == ("repeats an earlier step",)


def test_unreadable_equations_are_not_taken_for_sentences():
    assert read_plan(PlanGraph(["<<7+=>>"], QUESTION, "7")).steps[0].notes == ("not an equation",)


@pytest.mark.parametrize(
    ("plan", "answer", "modulus", "flaws"),
    [
        (["<<2+3=5>>", "<<5*2=10>>"], "10", None, ["", ""]),
        (["<<2+3=6>>", "<<6*2=12>>"], "12", None, ["false: it is 5", ""]),
        (["<<7+6=2>>", "<<2*3=7>>"], "7", 11, ["", "false: it is 6 modulo 11"]),
        (["<<2+3=5>>", "<<1+1=2>>"], "2", None, ["result not used", ""]),
        (["<<2+3=5>>", "<<4+"], "9", None, ["result not used", "not an equation"]),
        (["<<1/0=5>>"], "5", None, ["false"]),
        (["<<2+3=5>>"], None, None, ["result not used"]),
        (["First she walks.", "Then she runs."], "5", None, ["", ""]),
        ([], "5", None, []),
    ],
)
def test_steps_are_marked(plan, answer, modulus, flaws):
    expected = [Step(text, flaw) for text, flaw in zip(plan, flaws, strict=True)]
    assert marked_steps(PlanGraph(plan, "", answer, modulus)) == expected


def test_steps_in_sentences_show_why_they_earn_nothing():
    question = "Every terp is a brim. Tom is a terp. Is Tom a brim or fim?"
    plan = ["Tom is a terp.", "Tom is a terp.", "Every terp is a brim.", "Every brim is a fim."]
    flaws = [step.flaw for step in marked_sentences(PlanGraph(plan, question, "Tom is a brim."))]
    assert flaws == ["", "repeats an earlier step", "", "follows from nothing before it"]
