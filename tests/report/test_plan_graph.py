from __future__ import annotations

import pytest

from latentplan.evaluation.latent_table import LatentRow
from latentplan.report.figures.latent_maps import LABELS, operator_of, result_of
from latentplan.report.figures.plan_graph import Given, plan_graph

ASKED = "a dial shows 7 . first add 3 . second double it ."


def test_a_chain_leads_from_the_question_to_the_answer():
    graph = plan_graph(["<<7+3=10>>", "<<10*2=9>>"], ASKED, "9", modulus=11)
    first, second = graph.nodes
    assert (first.sources, first.given, first.column) == ((), (Given("7", True), Given("3", True)), 0)
    assert (second.sources, second.given, second.column) == ((0,), (Given("2", True),), 1)
    assert graph.answering == 1
    assert first.flaw == second.flaw == ""
    assert second.text == "10*2 = 9"


def test_an_operand_is_the_latest_result_of_its_value():
    graph = plan_graph(["<<1+3=4>>", "<<2+2=4>>", "<<4*3=12>>"], "1 3 2", "12")
    assert graph.nodes[2].sources == (1,)


def test_a_result_serves_once_where_the_question_has_the_number_too():
    graph = plan_graph(["<<1+2=3>>", "<<3*3=9>>"], "1 and 2 and 3", "9")
    assert graph.nodes[1].sources == (0,)
    assert graph.nodes[1].given == (Given("3", True),)


def test_a_result_used_twice_is_one_arrow():
    graph = plan_graph(["<<1+4=5>>", "<<5+5=10>>"], "1 and 4", "10")
    assert (graph.nodes[1].sources, graph.nodes[1].given) == ((0,), ())


def test_a_number_from_nowhere_is_not_known():
    assert plan_graph(["<<7+8=15>>"], ASKED, "15").nodes[0].given == (Given("7", True), Given("8", False))


def test_branches_share_a_column():
    graph = plan_graph(["<<1+2=3>>", "<<4+5=9>>", "<<3*9=27>>"], "1 2 4 5", "27")
    assert [(node.column, node.row) for node in graph.nodes] == [(0, 0), (0, 1), (1, 0)]
    assert graph.nodes[2].sources == (0, 1)


def test_a_step_with_the_rest_of_a_chain_is_several_nodes():
    graph = plan_graph(["<<1+2=3>><<3*5=15>>"], "1 2 5", "15")
    assert [node.text for node in graph.nodes] == ["1+2 = 3", "3*5 = 15"]
    assert graph.nodes[1].sources == (0,)


def test_flaws_and_unreadable_steps():
    graph = plan_graph(["<<7+3=11>>", "<<oops", "<<11*2=22>>"], ASKED, "22")
    assert graph.nodes[0].flaw == "false: it is 10"
    assert (graph.nodes[1].text, graph.nodes[1].flaw) == ("oops", "not an equation")
    assert graph.nodes[2].sources == (0,)


@pytest.mark.parametrize("answer", [None, "five", "4"])
def test_no_step_has_this_answer(answer):
    assert plan_graph(["<<7+3=10>>"], ASKED, answer).answering is None


def test_sentences_stand_in_their_order():
    graph = plan_graph(["Ann is a wump.", "Every wump is a zorp."], "Is Ann a zorp?", "yes")
    assert [(node.column, node.sources, node.flaw) for node in graph.nodes] == [(0, (), ""), (1, (), "")]


def test_no_steps():
    assert plan_graph([], ASKED, "9").nodes == ()


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
    assert (result_of(text), operator_of(text)) == (result, operator)


def test_labels_of_a_row():
    row = LatentRow(problem=0, step=2, text="<<7-3=4>>", sigma=0.1, correct=False)
    assert {name: label(row) for name, label in LABELS.items()} == {
        "result": "4",
        "operator": "−",
        "step": "2",
        "answer": "wrong",
    }
