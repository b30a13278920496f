"""Is the decoded plan itself sound: are its equations true, and do their numbers come from somewhere?

Scores beside coherence, so that a chain cannot score by being connected and wrong. The plan score is the
product of validity, grounding and strict coherence. Validity and grounding are shares of the decoded steps,
in [0, 1]: a step that cannot be read counts as a miss, and no steps score 0. A step with several equations,
the rest of a chain longer than the latent steps, is as good as the worst of them.

Does each decoded step lead on to a later one, and the last to the answer?

The coherence reward of ATP-Latent (arXiv:2601.21598) needs no labels: it reads only what the step decoder
makes of the latents, and the predicted answer.

    decoded steps                          answer    paper    strict
    <<16-3-4=9>>  <<9*2=18>>               18        1        1
    <<1+3=4>>     <<14*2=28>>              28        1        1/2       '4' occurs in '14'
    <<3+4=7>><<7*2=14>>                    14        0        1         paper: a step's result is its first, 7
    <<3+1=4>><<2*7=14>>                    14        1        1/2       and '4' occurs in '14'
    <<7+3=5+5=10>>                         10        0        0         paper: the result is '5+5=10'
    no equation   nor this one             28        1        0         the empty result occurs everywhere
                                           28        1        0         no steps at all
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from latentplan.problems.answers import NUMBER, AnswerKind, parse_number
from latentplan.problems.equations import Equation, find_numbers
from latentplan.problems.problem import Problem
from latentplan.rewards.contract import answer_kinds, column, product
from latentplan.rewards.plan_graph import equations_of, of_equations

_PUBLISHED_RESULT = re.compile(r"=(.*?)>>")


@of_equations
def coherence_paper(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """`paper_coherence` of each trajectory; None where nothing was decoded (no step decoder).

    As published, the last result is looked for in the whole text behind the latents, marker or not. Where the
    steps are themselves written in that text (a chain of thought), only what follows them is the prediction.
    """
    return [
        None if steps is None else paper_coherence(steps, _after_steps(completion, steps))
        for completion, steps in zip(completions, column(decoded_steps, completions), strict=True)
    ]


@of_equations
def coherence_strict(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    answer: Sequence[str | None] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """`strict_coherence` of each trajectory; None where nothing was decoded (no step decoder)."""
    kinds = answer_kinds(completions, problems, answer)
    return [
        None if steps is None else strict_coherence(steps, kind.extract(completion), kind)
        for completion, steps, kind in zip(
            completions, column(decoded_steps, completions), kinds, strict=True
        )
    ]


def paper_coherence(steps: Sequence[str], predicted: str | None) -> float:
    """Coherence by substrings, ATP-Latent's published rule in every case (arXiv:2601.21598), for comparison.

    The result of a step is what stands between its first `=` from which a `>>` follows in the same line and
    that `>>`, without surrounding blanks; it is empty where there is none. A step counts if its result occurs
    in the text of any later step, the last if it occurs in the text that was predicted; the score is the
    share of steps that count. What this rewards or misses by accident:

    - a step that cannot be read has the empty result, which occurs everywhere, so gibberish scores 1;
    - '4' occurs in '14', and also in a later step's own result;
    - no steps at all score 1;
    - of several equations in a step the first is compared, which the last step's seldom is the answer to;
    - of `<<a=b=c>>` the result is 'b=c', which hardly ever occurs again;
    - `3+4=7` without `>>` has the empty result.

    Args:
        steps: the decoded steps.
        predicted: the text behind the latents; None is the empty text.
    """
    if not steps:
        return 1.0
    counted = 0
    for index, result in enumerate(map(_published_result, steps)):
        later = steps[index + 1 :] or [predicted or ""]
        counted += any(result in text for text in later)
    return counted / len(steps)


def strict_coherence(steps: Sequence[str], answer: str | None, kind: AnswerKind = NUMBER) -> float:
    """Coherence by numbers, which closes the holes of `paper_coherence`: our default for RL.

    A step counts if its result is an operand of a later step or equals the predicted answer, the last only if
    it equals the answer; one that cannot be read never counts. The score is the share of steps that count,
    and 0 without steps. An answer that is no number equals no result.

    The equations of a decoded step that holds several, the rest of a long chain, are steps of the chain in
    their order, so that the score is the same as if each had been decoded by itself.
    """
    chain = [equation for step in steps for equation in equations_of(step) or (None,)]
    counted = sum(_is_carried_on(index, chain, answer, kind) for index in range(len(chain)))
    return counted / len(chain) if chain else 0.0


def _published_result(step: str) -> str:
    found = _PUBLISHED_RESULT.search(step)
    return found.group(1).strip() if found else ""


def _after_steps(completion: str, steps: Sequence[str]) -> str:
    """What follows the steps where they all stand in the completion, in order; else the whole completion."""
    end = 0
    for step in steps:
        start = completion.find(step, end)
        if start < 0:
            return completion
        end = start + len(step)
    return completion[end:]


def _is_carried_on(
    index: int, equations: Sequence[Equation | None], answer: str | None, kind: AnswerKind
) -> bool:
    equation = equations[index]
    if equation is None:
        return False
    later = (operand for other in equations[index + 1 :] if other for operand in other.operands)
    return equation.result in later or kind.is_result(parse_number(equation.result_text), answer)


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
