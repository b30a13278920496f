"""A decoded plan as a graph: which steps are true, grounded and used, and which result is the answer.

    <<7+3=10>> <<10*2=20>>    7, 3 → node 0 → node 1 ← 2,  node 1 → answer

Every score, verdict and drawing of a plan in equations reads this graph, which is data alone: `plan_report`
puts it into words. A node is an equation. A step is one node, or several: a chain longer than the K latent
steps puts its rest into the last of them, so what is decoded there may be `<<3+4=7>><<7*2=14>>`, with the
step separator between. A step that cannot be read is a node without an equation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import islice

from latentplan.problems.answers import NUMBER, AnswerKind, parse_number
from latentplan.problems.equations import Equation, evaluate, find_equations, find_numbers, parse_equation

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


@lru_cache(maxsize=65536)
def equations_of(step: str) -> tuple[Equation, ...]:
    """Returns the equation that a step consists of, else every readable one in double angle brackets.

    The equations are in the order of the text. What else the step says is ignored. A step without a readable
    equation has none: it cannot be read.
    """
    equation = parse_equation(step)
    return tuple(find_equations(step)) if equation is None else (equation,)


def result_of(step: str) -> Fraction | None:
    """Returns the result of the last equation of a step; None where no equation can be read."""
    equations = equations_of(step)
    return equations[-1].result if equations else None


def value_of(equation: Equation, modulus: int | None = None) -> Fraction | None:
    """Returns what the expression of an equation comes to; None where it has no value (division by zero)."""
    try:
        return evaluate(equation.expression, modulus)
    except ValueError:
        return None


def in_sentences(steps: Iterable[str]) -> bool:
    """Tells whether most of these steps hold no readable equation, as those of chains in sentences."""
    readable = [bool(equations_of(step)) for step in steps]
    return bool(readable) and 2 * sum(readable) < len(readable)


def equations_apply(kind: AnswerKind, steps: Iterable[str]) -> bool:
    """Tells whether scores of equations say anything of such a chain.

    They do where an equation can have the answer as its result, and for chains that are written in equations,
    `<<...>>`. Of sentences that lead to a word or a letter they would say 0, whatever these are worth.
    """
    return kind.computed or any("<<" in step for step in steps)


@lru_cache(maxsize=16384)
def numbers_of_question(question: str) -> frozenset[Fraction]:
    """Returns every number that a question brings in, in digits or in words.

    Digits as they stand; `50%` as 1/2 and 50; `3/4` as 3, 4 and 3/4; number words; and what other words
    imply: 2 for 'twice', 2 and 1/2 for 'half', 12 for 'dozen', 60 for 'minutes', 7 for 'weeks'.
    """
    numbers = set(find_numbers(question)) | set(find_numbers(question.replace("%", " ")))
    numbers |= {Fraction(int(top), int(bottom)) for top, bottom in _FRACTION.findall(question)}
    return frozenset(numbers.union(*(brought for word, brought in _WORDS if word.search(question))))


@dataclass(frozen=True, slots=True)
class Operand:
    """A number that an equation takes.

    Attributes:
        value: the number.
        source: the index of the earlier node that it is taken from: the latest whose result it is and that no
            operand before it is taken from. Where all are taken, the latest again, or none if the question
            has the number. None where it is no result.
        in_question: whether the question has it, with either sign.
    """

    value: Fraction
    source: int | None
    in_question: bool


@dataclass(frozen=True, slots=True)
class Node:
    """One equation of a plan, or a step that cannot be read.

    Attributes:
        step: the index of its step.
        equation: the equation; None where the step cannot be read. All that follows is then False or empty.
        is_true: whether the equation is true, modulo the modulus of the graph where it has one.
        value: what the expression comes to; None where it has no value.
        operands: the numbers of the expression, in order.
        unknown: those that come from nowhere, see `PlanGraph.unknown`.
        targets: the indices of all later nodes that have its result as an operand.
        is_answer: whether its result, as written, is the predicted answer.
    """

    step: int
    equation: Equation | None = None
    is_true: bool = False
    value: Fraction | None = None
    operands: tuple[Operand, ...] = ()
    unknown: tuple[Fraction, ...] = ()
    targets: tuple[int, ...] = ()
    is_answer: bool = False

    @property
    def is_used(self) -> bool:
        """Whether its result leads on to a later node or is the answer."""
        return bool(self.targets) or self.is_answer

    @property
    def sources(self) -> tuple[int, ...]:
        """The indices of the earlier nodes whose results it takes, each once."""
        return tuple(dict.fromkeys(each.source for each in self.operands if each.source is not None))


class PlanGraph:
    """A plan with its question and the predicted answer.

    What is not read is not computed: a reward that needs one column, such as `used`, pays for that alone.

    Args:
        steps: the text of each decoded step.
        question: in words; needed for what is grounded, and for where operands come from.
        answer: the predicted answer; None where there is none.
        modulus: of the arithmetic; None for ordinary numbers.
        kind: of the answer.

    Attributes:
        equations: `[nodes]`, None for a step that cannot be read. Each step has one node at least.
    """

    def __init__(
        self,
        steps: Sequence[str],
        question: str = "",
        answer: str | None = None,
        modulus: int | None = None,
        kind: AnswerKind = NUMBER,
    ):
        self.steps, self.question, self.answer = steps, question, answer
        self.modulus, self.kind = modulus, kind
        self._parts: list[tuple[Equation | None, ...]] = [equations_of(step) or (None,) for step in steps]
        self.equations = [equation for part in self._parts for equation in part]

    def true(self) -> list[bool]:
        """Returns `[nodes]`, whether the equation is true (modulo the modulus)."""
        return [equation is not None and equation.is_true(self.modulus) for equation in self.equations]

    def unknown(self) -> list[list[Fraction]]:
        """Returns `[nodes]`, the operands that come from nowhere.

        Known are the numbers of the question (see `numbers_of_question`), the results of earlier nodes, of
        the same step too, and `CONSTANTS`, each also with the other sign.
        """
        known = set(CONSTANTS)
        known |= numbers_of_question(self.question)
        found: list[list[Fraction]] = []
        for equation in self.equations:
            if equation is None:
                found.append([])
                continue
            found.append([each for each in equation.operands if each not in known and -each not in known])
            known.add(equation.result)
        return found

    def grounded(self) -> list[bool]:
        """Returns `[nodes]`, whether every operand of the equation is known."""
        pairs = zip(self.equations, self.unknown(), strict=True)
        return [equation is not None and not unknown for equation, unknown in pairs]

    def used(self) -> list[bool]:
        """Returns `[nodes]`, whether the result is an operand of a later node, or as written the answer."""
        found: list[bool] = []
        later: list[Fraction] = []
        for equation in reversed(self.equations):
            if equation is None:
                found.append(False)
                continue
            found.append(equation.result in later or self._is_answer(equation))
            later[:0] = equation.operands
        return found[::-1]

    @property
    def validity(self) -> float:
        """The share of steps whose equations are all true; 0 without steps."""
        return _share(self._of_steps(self.true()))

    @property
    def grounding(self) -> float:
        """The share of steps all of whose operands are known; 0 without steps."""
        return _share(self._of_steps(self.grounded()))

    @property
    def coherence(self) -> float:
        """The share of nodes whose result is used: the strict coherence; 0 without steps."""
        return _share(self.used())

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes in the order of the plan, each with all that is said of it."""
        steps = [step for step, part in enumerate(self._parts) for _ in part]
        columns = zip(steps, self.equations, self.true(), self.unknown(), strict=True)
        found: list[Node] = []
        for index, (step, equation, is_true, unknown) in enumerate(columns):
            if equation is None:
                found.append(Node(step))
                continue
            value = value_of(equation, self.modulus)
            operands, targets = self._operands(index), self._targets(index)
            is_answer = self._is_answer(equation)
            found.append(Node(step, equation, is_true, value, operands, tuple(unknown), targets, is_answer))
        return tuple(found)

    @property
    def nodes_of_steps(self) -> list[list[Node]]:
        """`[steps]`, the nodes of each step."""
        found: list[list[Node]] = [[] for _ in self.steps]
        for node in self.nodes:
            found[node.step].append(node)
        return found

    @property
    def answer_node(self) -> int | None:
        """The index of the last node whose result, as a number, is the answer; None where there is none.

        `Node.is_answer` compares the text instead, in which 50% is 50 as in an answer, and not 1/2.
        """
        results = enumerate(None if each is None else each.result for each in self.equations)
        found = [index for index, result in results if self.kind.is_result(result, self.answer)]
        return found[-1] if found else None

    def _of_steps(self, column: list[bool]) -> list[bool]:
        """Returns `[steps]`, whether a column, `[nodes]`, holds for all nodes of each step."""
        if len(column) == len(self._parts):
            return column
        values = iter(column)
        return [all(list(islice(values, len(part)))) for part in self._parts]

    def _is_answer(self, equation: Equation) -> bool:
        return self.kind.is_result(parse_number(equation.result_text), self.answer)

    def _targets(self, index: int) -> tuple[int, ...]:
        equation, later = self.equations[index], enumerate(self.equations[index + 1 :], index + 1)
        assert equation is not None
        return tuple(at for at, other in later if other and equation.result in other.operands)

    def _operands(self, index: int) -> tuple[Operand, ...]:
        equation, earlier = self.equations[index], self.equations[:index]
        assert equation is not None
        numbers = numbers_of_question(self.question)
        found: list[Operand] = []
        taken: set[int] = set()
        for value in equation.operands:
            of = [source for source, other in enumerate(earlier) if other and other.result == value]
            fresh = [source for source in of if source not in taken]
            in_question = value in numbers or -value in numbers
            taken.update(fresh[-1:])
            sources = fresh or ([] if in_question else of)
            found.append(Operand(value, sources[-1] if sources else None, in_question))
        return tuple(found)


def _share(column: Sequence[bool]) -> float:
    return sum(column) / len(column) if column else 0.0
