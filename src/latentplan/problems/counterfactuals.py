"""Questions that differ in exactly one number: of minigsm with their right answers, of other texts without.

Ann has 3 pens and buys 4. How many has she now?     Ann has 3 pens and buys 5. How many has she now?
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from latentplan.problems.evaluation_sets import minigsm_preset
from latentplan.problems.minigsm.counterfactuals import generate_pairs
from latentplan.problems.minigsm.presets import Split
from latentplan.problems.problem import Chain, Problem

# Not a part of a decimal, a fraction, a date, a time or a word, and not 0 or 1, which are seldom quantities.
_NUMBER = re.compile(r"(?<![\w.,/:$%-])\$?(?!0\d)([2-9]|[1-9]\d{1,3})(?![\w/:]|[.,]\d)")


@dataclass(frozen=True)
class Counterfactual:
    """A question that differs in one number.

    Attributes:
        question: in words.
        answer: the right one; None where it is not known, and the model's own answer has to do.
        steps: the labelled chain; empty where it is not known.
    """

    question: str
    answer: str | None = None
    steps: Chain = ()


def counterfactuals(
    argument: str, problems: Sequence[Problem], split: str = "test"
) -> list[Counterfactual | None]:
    """A partner for each problem of the evaluation set that `argument` names; None where there is none.

    Of a minigsm preset, whose generator knows what follows from a number, they have their right answers;
    elsewhere a number of the text is changed, and what follows from it is not known.
    """
    preset = minigsm_preset(argument)
    if preset is not None:
        pairs = list(generate_pairs(preset, split=cast(Split, split), count=len(problems), seed=0))
        if [problem for problem, _ in pairs] == list(problems):
            return [
                None if other is None else Counterfactual(other.question, other.answer, other.steps)
                for _, other in pairs
            ]
    return [edited_question(problem.question) for problem in problems]


def edited_question(question: str) -> Counterfactual | None:
    """The question with one of its whole numbers, from 2 to 9999, changed by up to a quarter.

    Which number, and what it becomes, follows from the question alone. None for a question without such a
    number.
    """
    rng = random.Random(question)
    found = list(_NUMBER.finditer(question))
    if not found:
        return None
    chosen = rng.choice(found)
    number = int(chosen.group(1))
    reach = max(1, number // 4)
    other = rng.choice([each for each in range(max(1, number - reach), number + reach + 1) if each != number])
    start, end = chosen.span(1)
    return Counterfactual(f"{question[:start]}{other}{question[end:]}")
