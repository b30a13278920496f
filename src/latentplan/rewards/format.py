"""Is the completion well formed?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from latentplan.problems.answers import NUMBER, AnswerKind, normalise_answer, parse_number
from latentplan.problems.problem import Problem
from latentplan.rewards.contract import answer_kinds, column

_MARKER = re.compile(r"#{3,}")


def format_reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    finished: Sequence[bool] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """1.0 where the completion has one marker, `### `, with an answer behind it, and was ended; else 0.0.

    `finished` says per trajectory whether the end-of-sequence token came before the length limit; without it,
    that is not asked.
    """
    kinds = answer_kinds(completions, problems)
    return [
        float(ended is not False and is_well_formed(completion, kind))
        for completion, ended, kind in zip(completions, column(finished, completions), kinds, strict=True)
    ]


def is_well_formed(completion: str, kind: AnswerKind = NUMBER) -> bool:
    """Whether the marker occurs exactly once and is followed by a number or a word."""
    if len(_MARKER.findall(completion)) != 1:
        return False
    answer = kind.extract(completion)
    return answer is not None and (parse_number(answer) is not None or bool(normalise_answer(answer)))
