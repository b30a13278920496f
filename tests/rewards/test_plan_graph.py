from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.rewards.plan_graph import Operand, PlanGraph

QUESTION = "a dial shows 7 . first add 3 . second double it ."


def numbers(*values):
    return tuple(map(Fraction, values))


def test_a_chain_leads_from_the_question_to_the_answer():
    graph = PlanGraph(["<<7+3=10>>", "<<10*2=9>>"], QUESTION, "9", modulus=11)
    first, second = graph.nodes
    assert first.operands == (Operand(Fraction(7), None, True), Operand(Fraction(3), None, True))
    assert second.operands == (Operand(Fraction(10), 0, False), Operand(Fraction(2), None, True))
    assert (first.targets, first.is_answer, second.targets, second.is_answer) == ((1,), False, (), True)
    assert (first.is_true, second.is_true, second.value) == (True, True, 9)
    assert graph.answer_node == 1
    assert (graph.validity, graph.grounding, graph.coherence) == (1, 1, 1)


def test_what_is_wrong_stands_in_the_node():
    graph = PlanGraph(["<<7+3=11>>", "<<oops", "<<11*5=22>>", "<<1/0=3>>"], QUESTION, "22")
    sums, unreadable, product, quotient = graph.nodes
    assert (sums.is_true, sums.value, sums.unknown, sums.is_used) == (False, 10, (), True)
    assert (unreadable.equation, unreadable.is_true, unreadable.is_used) == (None, False, False)
    assert (product.unknown, product.value, product.is_answer) == (numbers(5), 55, True)
    assert (quotient.is_true, quotient.value, quotient.unknown) == (False, None, numbers(0))
    assert (graph.validity, graph.grounding, graph.coherence) == (0, 1 / 4, 1 / 2)


@pytest.mark.parametrize(
    ("plan", "question", "sources"),
    [
        (["<<1+3=4>>", "<<2+2=4>>", "<<4*3=12>>"], "1 3 2", (1,)),  # the latest result of this value
        (["<<1+2=3>>", "<<3*3=9>>"], "1 and 2 and 3", (0,)),  # one 3 is the result, the other the question's
        (["<<1+4=5>>", "<<5+5=10>>"], "1 and 4", (0,)),  # both are the result, which is one source
        (["<<1+2=3>>", "<<4+5=9>>", "<<3*9=27>>"], "1 2 4 5", (0, 1)),
        (["<<1+2=3>><<3*5=15>>"], "1 2 5", (0,)),  # within a step
    ],
)
def test_operands_come_from_earlier_results(plan, question, sources):
    assert PlanGraph(plan, question).nodes[-1].sources == sources


def test_a_result_goes_into_every_later_equation_that_has_it():
    graph = PlanGraph(["<<7-3=4>>", "<<4+2=6>><<4+6=10>>", "<<4*10=40>>"], QUESTION, "40")
    assert [node.step for node in graph.nodes] == [0, 1, 1, 2]
    assert [node.targets for node in graph.nodes] == [(1, 2, 3), (2,), (3,), ()]


def test_a_number_of_the_other_sign_is_known_but_no_result():
    graph = PlanGraph(["<<3-7=-4>>", "<<10-4=6>>"], "3 7 10", "6")
    assert graph.nodes[1].operands[1] == Operand(Fraction(4), None, False)
    assert graph.nodes[1].unknown == ()
    assert graph.nodes[0].targets == ()


def test_a_percentage_as_answer_is_compared_as_it_is_written():
    graph = PlanGraph(["<<1/2=50%>>"], "", "50%")
    assert (graph.nodes[0].is_answer, graph.answer_node) == (True, None)
    graph = PlanGraph(["<<1/2=50%>>"], "", "0.5")
    assert (graph.nodes[0].is_answer, graph.answer_node) == (False, 0)


@pytest.mark.parametrize("answer", [None, "five", "4"])
def test_no_step_has_this_answer(answer):
    assert PlanGraph(["<<7+3=10>>"], QUESTION, answer).answer_node is None


def test_no_steps():
    graph = PlanGraph([], QUESTION, "9")
    assert (graph.nodes, graph.nodes_of_steps, graph.answer_node) == ((), [], None)
    assert (graph.validity, graph.grounding, graph.coherence) == (0, 0, 0)


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="0123456789+-*/=<>. ", max_size=20), max_size=5),
    st.text(max_size=20),
    st.one_of(st.none(), st.from_regex(r"[0-9]{1,2}", fullmatch=True)),
    st.one_of(st.none(), st.integers(1, 12)),
)
def test_columns_and_nodes_say_the_same(steps, question, answer, modulus):
    graph = PlanGraph(steps, question, answer, modulus)
    readable = [node.equation is not None for node in graph.nodes]
    assert graph.true() == [node.is_true for node in graph.nodes]
    assert graph.used() == [node.is_used for node in graph.nodes]
    unknown = [bool(node.unknown) for node in graph.nodes]
    assert graph.grounded() == [a and not b for a, b in zip(readable, unknown, strict=True)]
    assert [node for nodes in graph.nodes_of_steps for node in nodes] == list(graph.nodes)
    for index, node in enumerate(graph.nodes):
        assert all(source < index for source in node.sources)
        assert all(target > index for target in node.targets)
