"""Is the decoded plan itself sound: are its equations true, and do their numbers come from somewhere?

Scores beside coherence, so that a chain cannot score by being connected and wrong. The plan score is the
product of validity, grounding and strict coherence. Validity and grounding are shares of the decoded steps,
in [0, 1]: a step that cannot be read counts as a miss, and no steps score 0. A step with several equations,
the rest of a chain longer than the latent steps, is as good as the worst of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from latentplan.problems.equations import find_numbers
from latentplan.rewards.coherence import coherence_strict
from latentplan.rewards.contract import column, product
from latentplan.rewards.steps import equations_of, of_equations

CONSTANTS = frozenset([Fraction(1), Fraction(100)])
"""Numbers that a step may always bring in: the whole, and per cent."""

_COUNTING = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety hundred"
_NUMBERS_OF_WORDS: dict[str, tuple[str, ...]] = {
    **{word: (str(number),) for number, word in enumerate(_COUNTING.split())},
    **{word: (str(number),) for number, word in zip(range(30, 101, 10), _TENS.split(), strict=True)},
    r"thousands?": ("1000",),
    r"once|single|alone": ("1",),
    r"twice|doubl\w*|both|pairs?|couples?": ("2",),
    r"half|halve[sd]?|halving|average\w*": ("2", "1/2"),
    r"thrice|tripl\w*": ("3",),
    r"thirds?": ("3", "1/3"),
    r"quarter\w*|quadrupl\w*": ("4", "1/4"),
    r"fifths?": ("5", "1/5"),
    r"tenths?": ("10", "1/10"),
    r"dozens?": ("12",),
    r"minutes?|hours?|hourly": ("60",),
    r"hours?|days?|daily": ("24",),
    r"days?|weeks?|daily|weekly": ("7",),
    r"weeks?|weekly|years?|yearly|annual\w*": ("52",),
    r"days?|months?|monthly": ("30",),
    r"months?|monthly|years?|yearly|annual\w*|foot|feet|inch\w*": ("12",),
    r"days?|years?|yearly|annual\w*": ("365",),
    r"feet|yards?": ("3",),
}
_WORDS = [
    (re.compile(rf"\b(?:{word})\b", re.IGNORECASE), frozenset(map(Fraction, numbers)))
    for word, numbers in _NUMBERS_OF_WORDS.items()
]
_FRACTION = re.compile(r"([0-9]{1,9})/0*([1-9][0-9]{0,8})")


@of_equations
def validity_reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    modulus: Sequence[int | None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """`validity` of each trajectory; None where nothing was decoded (no step decoder)."""
    columns = zip(column(decoded_steps, completions), column(modulus, completions), strict=True)
    return [None if steps is None else validity(steps, base) for steps, base in columns]


@of_equations
def grounding_reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    question: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """`grounding` of each trajectory in its `question`, else its prompt; None where nothing was decoded."""
    columns = zip(column(decoded_steps, completions), prompts if question is None else question, strict=True)
    return [None if steps is None else grounding(steps, asked) for steps, asked in columns]


def plan_reward(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
    """The plan score: validity times grounding times strict coherence; None where nothing was decoded."""
    parts = (validity_reward, grounding_reward, coherence_strict)
    return product(*(reward(prompts, completions, **columns) for reward in parts))


def validity(steps: Sequence[str], modulus: int | None = None) -> float:
    """The share of decoded steps whose equations are all true, modulo `modulus` where given."""
    chain = [equations_of(step) for step in steps]
    true = sum(bool(step) and all(equation.is_true(modulus) for equation in step) for step in chain)
    return true / len(chain) if chain else 0.0


def grounding(steps: Sequence[str], question: str) -> float:
    """The share of decoded steps all of whose operands are known.

    Known are the numbers of the question (see `numbers_of_question`), the results of earlier equations, of
    the same step too, and `CONSTANTS`, each also with the other sign.
    """
    known = set(numbers_of_question(question) | CONSTANTS)
    grounded = 0
    for equations in map(equations_of, steps):
        all_known = bool(equations)
        for equation in equations:
            all_known &= all(operand in known or -operand in known for operand in equation.operands)
            known.add(equation.result)
        grounded += all_known
    return grounded / len(steps) if steps else 0.0


@lru_cache(maxsize=16384)
def numbers_of_question(question: str) -> frozenset[Fraction]:
    """Every number that a question brings in, in digits or in words.

    Digits as they stand; `50%` as 1/2 and 50; `3/4` as 3, 4 and 3/4; number words; and what other words
    imply: 2 for 'twice', 2 and 1/2 for 'half', 12 for 'dozen', 60 for 'minutes', 7 for 'weeks'.
    """
    numbers = set(find_numbers(question)) | set(find_numbers(question.replace("%", " ")))
    numbers |= {Fraction(int(top), int(bottom)) for top, bottom in _FRACTION.findall(question)}
    return frozenset(numbers.union(*(brought for word, brought in _WORDS if word.search(question))))
