"""The equations that a decoded step holds: one, or several where it stands for the rest of a chain.

A chain longer than the K latent steps puts its rest into the last of them, so what is decoded there may be
`<<3+4=7>><<7*2=14>>`, with the step separator between. Every score of a plan reads its steps here.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from latentplan.problems.equations import Equation, find_equations, parse_equation


@lru_cache(maxsize=65536)
def equations_of(step: str) -> tuple[Equation, ...]:
    """The equation that a step consists of, else every readable one in double angle brackets, in order.

    What else the step says is not asked. Without a readable equation there are none: the step cannot be read.
    """
    equation = parse_equation(step)
    return tuple(find_equations(step)) if equation is None else (equation,)


def in_sentences(steps: Iterable[str]) -> bool:
    """Whether most of these steps hold no equation in `<<...>>`, nor are one: chains in sentences do."""
    readable = [bool(equations_of(step)) for step in steps]
    return bool(readable) and 2 * sum(readable) < len(readable)
