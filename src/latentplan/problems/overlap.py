"""Problems that a training and a test set share: a model must not be trained on what it is evaluated on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from latentplan.problems.problem import Problem, normalise_question

QuestionKey = Callable[[str], str]
"""Maps a question to the text by which two questions count as the same."""

_NUMBER_WORDS = frozenset(
    re.findall(
        r"\w+",
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
        sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred
        thousand million billion once twice half""",
    )
)


def find_overlap(
    train: Iterable[Problem], test: Iterable[Problem], *, key: QuestionKey = normalise_question
) -> list[Problem]:
    """The training problems whose question is also in the test set, in order.

    With `key=question_template`, a test set made by changing the numbers of known questions overlaps with its
    source too: of GSM-Hard's 1319 questions 329 are GSM8K test questions unchanged, 1318 but for the numbers.
    """
    asked = {key(problem.question) for problem in test}
    return [problem for problem in train if key(problem.question) in asked]


def remove_overlap(
    train: Iterable[Problem], test: Iterable[Problem], *, key: QuestionKey = normalise_question
) -> list[Problem]:
    """The training problems whose question is not in the test set, in order; `key` as in `find_overlap`."""
    asked = {key(problem.question) for problem in test}
    return [problem for problem in train if key(problem.question) not in asked]


def question_template(question: str) -> str:
    """The normalised question without its numbers, in digits or in words."""
    words = re.findall(r"[a-z]+", normalise_question(question))
    return " ".join(word for word in words if word not in _NUMBER_WORDS)
