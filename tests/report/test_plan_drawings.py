from __future__ import annotations

import pytest

from latentplan.evaluation.latent_table import LatentRow
from latentplan.report.figures.latent_maps import LABELS, operator_of, shown_result
from latentplan.report.figures.plan_drawings import boxes
from latentplan.rewards.plan_graph import PlanGraph

QUESTION = "a dial shows 7 . first add 3 . second double it ."


def test_a_chain_is_drawn_from_left_to_right():
    first, second = boxes(PlanGraph(["<<7+3=10>>", "<<10*2=9>>"], QUESTION, "9", modulus=11))
    assert (first.text, first.flaw, first.column, first.row) == ("7+3 = 10", "", 0, 0)
    assert (second.text, second.flaw, second.column, second.row) == ("10*2 = 9", "", 1, 0)
    assert (first.given, second.given) == ([("7", True), ("3", True)], [("2", True)])


def test_branches_share_a_column():
    found = boxes(PlanGraph(["<<1+2=3>>", "<<4+5=9>>", "<<3*9=27>>"], "1 2 4 5", "27"))
    assert [(box.column, box.row) for box in found] == [(0, 0), (0, 1), (1, 0)]


def test_a_number_from_nowhere_is_not_known():
    (box,) = boxes(PlanGraph(["<<7+8.5=15.5>>"], QUESTION, "15.5"))
    assert box.given == [("7", True), ("8.5", False)]


def test_a_result_used_twice_is_no_given_number():
    assert boxes(PlanGraph(["<<1+4=5>>", "<<5+5=10>>"], "1 and 4", "10"))[1].given == []


def test_a_step_with_the_rest_of_a_chain_is_several_boxes_with_its_flaw():
    found = boxes(PlanGraph(["<<1+2=3>><<3*5=16>>"], "1 2 5", "15"))
    assert [box.text for box in found] == ["1+2 = 3", "3*5 = 16"]
    assert [box.flaw for box in found] == ["false: it is 15"] * 2


def test_unreadable_steps_show_their_text():
    found = boxes(PlanGraph(["<<7+3=11>>", "<<oops", "", "<<11*2=22>>"], QUESTION, "22"))
    assert [box.text for box in found] == ["7+3 = 11", "oops", "(empty)", "11*2 = 22"]
    assert [box.flaw for box in found] == ["false: it is 10", "not an equation", "not an equation", ""]


def test_sentences_stand_in_their_order():
    found = boxes(PlanGraph(["Ann is a wump.", "Every wump is a zorp."], "Is Ann a zorp?", "yes"))
    assert [(box.column, box.node.sources, box.flaw) for box in found] == [(0, (), ""), (1, (), "")]


@pytest.mark.parametrize(
    ("text", "result", "operator"),
    [
        ("<<7+3=10>>", "10", "+"),
        ("<<10x2=9>>", "9", "×"),
        ("<<-3-4=-7>>", "-7", "−"),
        ("<<5/2=2.5>>", "2.5", "÷"),
        ("<<2*3+4=10>>", "10", "several"),
        ("<<1+2=3>><<3+4=7>>", "7", "+"),
        ("Ann buys four pens.", None, None),
        (None, None, None),
    ],
)
def test_result_and_operator(text, result, operator):
    assert (shown_result(text), operator_of(text)) == (result, operator)


def test_labels_of_a_row():
    row = LatentRow(problem=0, step=2, text="<<7-3=4>>", sigma=0.1, correct=False)
    assert {name: label(row) for name, label in LABELS.items()} == {
        "result": "4",
        "operator": "−",
        "step": "2",
        "answer": "wrong",
    }
