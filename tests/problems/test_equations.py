import contextlib
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.problems.equations import (
    MAX_LENGTH,
    MAX_NESTING,
    Equation,
    evaluate,
    find_equations,
    find_numbers,
    parse_equation,
)


def fractions(*texts):
    return tuple(map(Fraction, texts))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("16-3-4", "9"),
        ("2+3*4", "14"),
        ("(2+3)*4", "20"),
        ("24/4/3", "2"),
        ("24/(4/2)", "12"),
        ("7-(3-1)", "5"),
        ("12/60", "1/5"),
        (".5*10", "5"),
        ("0.1+0.2", "3/10"),
        ("50%*20", "10"),
        ("$1,250.50 + $2", "2505/2"),
        ("3 x 4 × 5 ÷ 6", "10"),
        ("-3+5", "2"),
        ("5--3", "8"),
        ("--3", "3"),
        ("-(2+1)*2", "-6"),
        ("2*-3", "-6"),
        ("5 − 2", "3"),
    ],
)
def test_evaluate(expression, value):
    assert evaluate(expression) == Fraction(value)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "expected a number at position 0"),
        ("3+", "expected a number at position 2"),
        ("3 4", "expected an operator at position 2"),
        ("1,00", "expected an operator at position 1"),
        ("$5$3", "expected an operator at position 3"),
        ("2**3", "expected a number at position 2"),
        ("2^3", "expected an operator at position 1"),
        ("1e999999999", "expected an operator at position 1"),
        ("(3", r"expected '\)' at position 2"),
        ("3/(2-2)", "division by zero at position 1"),
        ("__import__('os')", "expected a number at position 0"),
        ("²+1", "expected a number at position 0"),
        ("(" * (MAX_NESTING + 1) + "1" + ")" * (MAX_NESTING + 1), "nested deeper than 32 at position 32"),
        ("9" * (MAX_LENGTH + 1), "longer than 256 characters at position 256"),
    ],
)
def test_what_cannot_be_evaluated_says_where(expression, reason):
    with pytest.raises(ValueError, match=reason):
        evaluate(expression)


def test_limits_are_just_reachable():
    assert evaluate("(" * MAX_NESTING + "1" + ")" * MAX_NESTING) == 1
    assert evaluate("9" * MAX_LENGTH) == 10**MAX_LENGTH - 1
    assert evaluate("-" * (MAX_LENGTH - 1) + "1") == -1


def test_modulus_reduces_the_value_and_asks_for_integers():
    assert evaluate("8+5", 11) == 2
    assert evaluate("2-5", 11) == 8
    assert evaluate("7*3", 11) == 10
    assert evaluate("12/4", 11) == 3
    assert evaluate("14/4*2/2", None) == Fraction(7, 2)
    with pytest.raises(ValueError, match=r"7/2 is no integer \(modulo 11\) at position 1"):
        evaluate("7/2*2", 11)
    with pytest.raises(ValueError, match="at least 1"):
        evaluate("1", 0)


def test_parse_equation_keeps_text_operands_and_result():
    assert parse_equation("<<16-3-4=9>>") == Equation("16-3-4", "9", fractions(16, 3, 4), Fraction(9))
    assert parse_equation(" 16-3-4 = 9 ") == Equation("16-3-4", "9", fractions(16, 3, 4), Fraction(9))
    assert parse_equation("<<50%*$1,200=$600>>") == Equation(
        "50%*$1,200", "$600", fractions("1/2", 1200), Fraction(600)
    )


@pytest.mark.parametrize(
    ("expression", "operands"),
    [
        ("-3+5", (-3, 5)),
        ("5-3", (5, 3)),
        ("5--3", (5, -3)),
        ("-(3+5)", (3, 5)),
        ("--3+5", (3, 5)),
        ("4", (4,)),
    ],
)
def test_operands_carry_their_own_sign(expression, operands):
    assert parse_equation(f"{expression}=0").operands == operands


@pytest.mark.parametrize(
    "step",
    [
        "",
        "hello",
        "<<>>",
        "<<=>>",
        "<<=3>>",
        "<<3+4>>",
        "<<3+4=>>",
        "<<3=3=3>>",
        "<<3+=7>>",
        "<<x+4=7>>",
        "<<3+4=7",
        "<<3+4=7>>7",
        "<<3+4=2*3>>",
        "<<1=1/0>>",
        "<<3+4=7 eggs>>",
        "so <<3+4=7>>",
    ],
)
def test_what_is_no_equation(step):
    assert parse_equation(step) is None


@pytest.mark.parametrize(
    ("step", "true"),
    [
        ("<<16-3-4=9>>", True),
        ("<<16-3-4=10>>", False),
        ("<<12/60=0.2>>", True),
        ("<<1/2=1/2>>", True),
        ("<<1/2=.50>>", True),
        ("<<1/2=50%>>", True),
        ("<<100/3=33.33>>", True),
        ("<<200/3=66.67>>", True),
        ("<<200/3=66.66>>", False),
        ("<<100/3=33>>", False),
        ("<<7/2=4>>", False),
        ("<<1/8=0.13>>", True),
        ("<<1/8=0.12>>", True),
        ("<<1/3=33.3%>>", True),
        ("<<1/100=0.0>>", False),
        ("<<100/3=33.333333333333336>>", True),
        ("<<.1*3=0.30000000000000004>>", True),
        ("<<5/0=0>>", False),
        ("<<3-5=-2>>", True),
    ],
)
def test_truth(step, true):
    assert parse_equation(step).is_true() is true


def test_truth_modulo():
    assert parse_equation("<<8+5=2>>").is_true(11)
    assert not parse_equation("<<8+5=2>>").is_true()
    assert parse_equation("<<2-5=8>>").is_true(11)
    assert parse_equation("<<8+5=13>>").is_true(11), "residues are compared, however they are written"
    assert not parse_equation("<<8+5=3>>").is_true(11)
    assert not parse_equation("<<7/2=9>>").is_true(11), "no inverses: a division has to come out exactly"
    assert not parse_equation("<<4+5=9.0001>>").is_true(11)


def test_find_equations_in_a_worked_solution():
    text = "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs, <<oops>> and makes 9 * 2 = $<<9*2=18>>18 a day."
    assert [(equation.expression, equation.result) for equation in find_equations(text)] == [
        ("16-3-4", 9),
        ("9*2", 18),
    ]
    assert find_equations("16-3-4=9") == []


def test_find_numbers():
    assert find_numbers("$1,000 and 50% of 3.5, or .25 - 3") == list(fractions(1000, "1/2", "7/2", "1/4", 3))
    assert find_numbers("none " + "9" * 5000) == []


EXPRESSIONS = st.recursive(
    st.one_of(
        st.integers(0, 10**6).map(str),
        st.decimals(0, 1000, places=2).map(str),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " * ", " - "]), inner).map("".join),
        inner.map("({})".format),
        inner.map("-({})".format),
    ),
    max_leaves=8,
)


def python_value(expression):
    """What Python makes of a generated expression, every number turned into a Fraction."""
    return eval(re.sub(r"[0-9.]+", lambda number: f"Fraction('{number.group(0)}')", expression))


@settings(deadline=None)
@given(EXPRESSIONS)
def test_evaluate_agrees_with_python_fractions(expression):
    try:
        expected = python_value(expression)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="division by zero"):
            evaluate(expression)
        return
    assert evaluate(expression) == expected
    equation = parse_equation(f"<<{expression}={expected}>>")
    assert equation.is_true()
    assert parse_equation(f"<<{expression}={expected + 1}>>").is_true() is False


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 50)), min_size=1), st.integers(1, 30))
def test_modulus_agrees_with_python(operations, modulus):
    expression = ("7" + "".join(f"{sign}{number}" for sign, number in operations))[:MAX_LENGTH].rstrip("+-*")
    assert evaluate(expression, modulus) == int(evaluate(expression)) % modulus
    assert parse_equation(f"<<{expression}={eval(expression) % modulus}>>").is_true(modulus)


@settings(deadline=None)
@given(st.one_of(st.text(), st.text(alphabet="0123456789+-*/()=<>.,%$x ", max_size=40)), st.integers(1, 12))
def test_no_text_is_too_strange(text, modulus):
    with contextlib.suppress(ValueError):
        assert isinstance(evaluate(text), Fraction)
    for step in (text, f"<<{text}>>"):
        equation = parse_equation(step)
        if equation is not None:
            assert equation.is_true() in (True, False)
            assert equation.is_true(modulus) in (True, False)
    find_equations(text)
    find_numbers(text)
