from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from latentplan.problems.equations import parse_equation
from latentplan.problems.formats.formulas import (
    Operation,
    chain_of,
    infix_formula,
    number_text,
    prefix_formula,
)
from latentplan.problems.problem import DataError

numbers = st.decimals(min_value=-999, max_value=999, places=2).map(Fraction)
formulas = st.recursive(
    numbers, lambda part: st.builds(Operation, st.sampled_from("+-*/"), part, part), max_leaves=6
)


def prefix(formula) -> list[str]:
    if isinstance(formula, Fraction):
        return [number_text(formula)]
    return [formula.operator, *prefix(formula.left), *prefix(formula.right)]


def infix(formula) -> str:
    if isinstance(formula, Fraction):
        return number_text(formula)
    return f"( {infix(formula.left)} {formula.operator} {infix(formula.right)} )"


@settings(deadline=None)
@given(formulas)
def test_formulas_are_read_back_and_every_step_is_true(formula):
    assert prefix_formula(prefix(formula)) == formula
    assert infix_formula(infix(formula)) == formula
    try:
        equations = [parse_equation(step) for step in chain_of(formula)]
    except DataError:
        assume(False)
    assert all(equation is not None and equation.is_true() for equation in equations)


def test_a_quotient_without_a_short_decimal_stays_inside_the_next_step():
    formula = prefix_formula(["*", "/", "-", "78", "46", "78", "100"])
    assert chain_of(formula) == ("<<78-46=32>>", "<<(32/78)*100=41.0256>>")


@pytest.mark.parametrize(
    ("value", "text"),
    [("56.0", "56"), ("-1.50", "-1.5"), ("1/3", "0.3333"), ("-1/30000", "-0.00003333"), ("33.00001/3", None)],
)
def test_number_text(value, text):
    if text is None:
        assert number_text(Fraction("33.0000001") / 3) == "11.0000"
    else:
        assert number_text(Fraction(value)) == text


def test_division_by_zero():
    with pytest.raises(DataError, match="divides by zero"):
        chain_of(infix_formula("( 1 / ( 2 - 2 ) )"))
