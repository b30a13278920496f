"""Is the completion well formed?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from latentplan.problems.answers import extract_answer, normalise_answer, parse_number
from latentplan.rewards.contract import column

_MARKER = re.compile(r"#{3,}")


def format_reward(
    prompts: Sequence[str], completions: Sequence[str], finished: Sequence[bool] | None = None, **kwargs: Any
) -> list[float | None]:
    """1.0 where the completion has one marker, `### `, with an answer behind it, and was ended; else 0.0.

    `finished` says per trajectory whether the end-of-sequence token came before the length limit; without it,
    that is not asked.
    """
    return [
        float(ended is not False and is_well_formed(completion))
        for completion, ended in zip(completions, column(finished, completions), strict=True)
    ]


def is_well_formed(completion: str) -> bool:
    """Whether the marker occurs exactly once and is followed by a number or a word."""
    if len(_MARKER.findall(completion)) != 1:
        return False
    answer = extract_answer(completion)
    return answer is not None and (parse_number(answer) is not None or bool(normalise_answer(answer)))
