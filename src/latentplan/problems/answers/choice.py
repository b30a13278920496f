"""Answers that are the letter of an option: `E`.

extract("### E")             "E"
extract("### (e) 21")        "E"
extract("### option E.")     "E"
extract("### 21")            "21"      no letter: shown as it stands, and right for no option
"""

from __future__ import annotations

import re
from fractions import Fraction

from latentplan.problems.answers.answer_kind import AnswerKind
from latentplan.problems.answers.extraction import extract_answer

_LETTER = re.compile(
    r"(?:(?:the\s++)?(?:correct\s++)?(?:answer|option|choice)\s*+(?:(?:is\b|:)\s*+)?)?"
    r"[\s(\[\"'*]*+(?P<letter>[A-Za-z])(?:\s*[)\].:,\"'*].*|\s*)",
    re.IGNORECASE | re.DOTALL,
)


class Choice(AnswerKind):
    """One of several options, named by its letter; which option says what stands in the question."""

    name = "choice"

    def accepts(self, reference: str) -> bool:
        """Whether it is one capital letter."""
        return re.fullmatch(r"[A-Z]", reference) is not None

    def extract(self, completion: str) -> str | None:
        """The letter behind the marker, with or without brackets and what the option says behind it."""
        answer = extract_answer(completion)
        return None if answer is None else letter_of(answer) or answer

    def matches(self, predicted: str, reference: str) -> bool:
        """Whether both name the same option."""
        letter = letter_of(predicted)
        return letter is not None and letter == letter_of(reference)

    def number(self, answer: str) -> Fraction | None:
        """None: a plan arrives at what an option says, and not at its letter."""
        return None

    def is_conclusion(self, answer: str) -> bool:
        """Always: which option the last step leads to is concluded."""
        return True


def letter_of(answer: str) -> str | None:
    """The letter of the option that a text names, as a capital; None where it names none."""
    found = _LETTER.fullmatch(answer.strip())
    return found["letter"].upper() if found else None
