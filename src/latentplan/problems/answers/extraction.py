r"""Finding the answer in a text.

extract_answer("<<16-3-4=9>> ### 9")      "9"         strict: the answer must stand behind a marker
last_answer("so she has 9 eggs left.")    "9"         lenient: else the last number
"""

from __future__ import annotations

import re
import unicodedata

from latentplan.problems.answers.quantities import CURRENCY

_MARKER = re.compile(r"(?<!#)#{3,}+[ \t]*+([^\s#][^\n]*)")
_NUMBER_IN_TEXT = re.compile(
    rf"(?:(?<![\w.)\]])[-−–])?(?:{CURRENCY}\s?[-−–]?)?"
    r"(?:\d+ \d+/\d+|(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}|/\d+)?)"
)
_YES_OR_NO = re.compile(r"\b(?:yes|no|true|false)\b", re.IGNORECASE)


def extract_answer(text: str) -> str | None:
    r"""The answer behind a marker, else None (strict).

    The first `### 9` or `#### 9` counts, up to the end of its line, as in GSM8K's own evaluation: a text that
    runs on into a second problem cannot replace its answer. Without such a marker, the last `\boxed{...}`.
    """
    marked = _MARKER.search(text)
    answer = marked.group(1) if marked else last_boxed(text)
    return (answer.strip() or None) if answer is not None else None


def last_answer(text: str) -> str | None:
    """The answer behind a marker, else the last number, else the last yes/no/true/false (lenient)."""
    marked = extract_answer(text)
    if marked is not None:
        return marked
    for pattern in (_NUMBER_IN_TEXT, _YES_OR_NO):
        found = pattern.findall(text)
        if found:
            return str(found[-1]).strip().rstrip(".")
    return None


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}` of a text, else None."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end]
    return None


def normalise_answer(text: str) -> str:
    """Lower case, single spaces, no quotes or punctuation at the ends; true/false become yes/no."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?\"'`*“”‘’")
    return {"true": "yes", "false": "no"}.get(text, text)
