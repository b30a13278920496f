"""Problems with exactly one number changed, for causal tests: what should the answer be then?

    a dial shows 7 . first add 3 . second double it . reading ?      9
    a dial shows 7 . first add 1 . second double it . reading ?      5

The words are the same, and so is the order of the labelled steps. A partner of a minigsm problem has its
correct answer, one of another text has none. It may be of any split: nothing is trained on it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

from latentplan.problems.minigsm.generate import Domain, Draft, open_domain, render_problems
from latentplan.problems.minigsm.presets import MinigsmConfig, Split
from latentplan.problems.problem import Chain, Problem
from latentplan.problems.sources import minigsm_preset

_PATIENCE = 50


def generate_pairs(
    config: MinigsmConfig, *, split: Split, count: int, seed: int
) -> Iterator[tuple[Problem, Problem | None]]:
    """Yields the problems of `generate` with equal arguments, each with a partner that differs in one number.

    A partner has another answer and as many labelled steps; None where none was found. Raises what
    `generate` raises.
    """
    domain = _Remembering(open_domain(config))
    for problem in render_problems(domain, config, split=split, count=count, seed=seed):
        yield problem, domain.partner(problem, config)


class _Remembering:
    """A domain that remembers its last draft and how it was rendered; it is its own draft."""

    def __init__(self, domain: Domain):
        self.domain = domain

    def draw(self, rng: random.Random, num_steps: int) -> _Remembering | None:
        """Returns a draft of the domain within."""
        self.draft: Draft | None = self.domain.draw(rng, num_steps)
        return None if self.draft is None else self

    @property
    def canonical(self) -> str:
        """That of the last draft."""
        return self._last.canonical

    def render(self, rng: random.Random) -> Problem | None:
        """Returns the last draft in words."""
        self.state = rng.getstate()
        return self._last.render(rng)

    def others(self, rng: random.Random, config: MinigsmConfig) -> Iterator[Draft]:
        """Returns those of the last draft."""
        return self._last.others(rng, config)

    def render_other(self, other: Draft, rng: random.Random) -> Problem | None:
        """Renders `other` in the words of the last draft."""
        return self._last.render_other(other, rng)

    def partner(self, problem: Problem, config: MinigsmConfig) -> Problem | None:
        """Returns a partner of the problem that was rendered last."""
        changes = random.Random(problem.question)
        for other in islice(self.others(changes, config), _PATIENCE):
            words = random.Random()
            words.setstate(self.state)
            partner = self.render_other(other, words)
            if partner is not None and partner.answer != problem.answer:
                return partner
        return None

    @property
    def _last(self) -> Draft:
        assert self.draft is not None
        return self.draft


# Not a part of a decimal, a fraction, a date, a time or a word, and not 0 or 1, which are seldom quantities.
_NUMBER = re.compile(r"(?<![\w.,/:$%-])\$?(?!0\d)([2-9]|[1-9]\d{1,3})(?![\w/:]|[.,]\d)")


@dataclass(frozen=True)
class Counterfactual:
    """A question that differs in one number.

    Attributes:
        question: in words.
        answer: the correct one; None where it is not known, and the model's own answer has to do.
        steps: the labelled chain; empty where it is not known.
    """

    question: str
    answer: str | None = None
    steps: Chain = ()


def counterfactuals(
    argument: str, problems: Sequence[Problem], split: str = "test"
) -> list[Counterfactual | None]:
    """Returns a partner for each problem of the evaluation set that `argument` names; None where there is
    none.

    Of a minigsm preset, whose generator knows what follows from a number, they have their correct answers;
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
    """Returns the question with one of its whole numbers, from 2 to 9999, changed by up to a quarter.

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
