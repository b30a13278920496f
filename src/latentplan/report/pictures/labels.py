"""What latent steps are coloured by: result, operator, step and correctness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from latentplan.evaluation.latent_table import LatentRow
from latentplan.rewards.steps import equations_of

_SPELLINGS = str.maketrans({"x": "*", "X": "*", "×": "*", "·": "*", "÷": "/"})
_SHOWN = {"+": "+", "-": "−", "*": "×", "/": "÷"}


def result_of(text: str | None) -> str | None:
    """The result of the last equation in a step, `"12"` or `"2.5"`; None where there is none."""
    equations = equations_of(text) if text else ()
    return shown_number(equations[-1].result) if equations else None


def operator_of(text: str | None) -> str | None:
    """The operator of a step, `"×"`; `"several"` where it has more than one kind; None where it has none."""
    equations = equations_of(text) if text else ()
    written = "".join(equation.expression for equation in equations).translate(_SPELLINGS)
    # A sign at the start is no operator.
    found = {symbol for place, symbol in enumerate(written) if place and symbol in _SHOWN}
    if len(found) > 1:
        return "several"
    return _SHOWN[found.pop()] if found else None


def shown_number(value: Fraction) -> str:
    """A number as readers write it, with six digits at most where it is broken."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.6g}"


LABELS: Mapping[str, Callable[[LatentRow], str | None]] = {
    "result": lambda row: result_of(row.text),
    "operator": lambda row: operator_of(row.text),
    "step": lambda row: str(row.step),
    "answer": lambda row: "right" if row.correct else "wrong",
}
"""By name: the class of a latent step, None where it has none."""
