"""Coherence of chains in sentences: is what each step finds carried on, up to the answer?

The open question of ATP-Latent (arXiv:2601.21598): its coherence reads equations only. Here a step is read
as clauses (`rewards.sentence_parsing`), which take things and give things: a calculation takes numbers and
gives its result; `every X is a Y`, where the question is told in such sentences, takes X and gives Y; any
other sentence takes what is known and gives the numbers and content words that are new. A clause is worth

    support x taken up x (1 if the answer rests on it, else 1/2)        each in [0, 1]

- *support*: how well known what it takes is, from the question and the clauses before it;
- *taken up*: whether a later clause, or the answer, takes what it gives. One result is a whole link, one word
  half of one (`STATED_WEIGHT`); each thing that is taken is taken from one clause only;
- a calculation that is plainly false, an `X is a Y` that follows from nothing, a repetition and a step that
  cannot be read are worth 0, and nothing can rest on them.

A chain is read from the front. Each thing that a clause takes is handed on by *one* earlier clause, so that
of two clauses that give the same only one is rewarded for one use. Then the answer takes what it takes, and
it is traced back which clauses it rests on. The score is the mean over clauses, and 0 without steps. It needs
no labels: the answer is the predicted one.

    decoded steps                                                  answer              natural
    48/2 = 24 clips in May.   48+24 = 72 in all.                   72                  1
    48+24 = 72 in all.   48/2 = 24 clips in May.                   72                  1/4     wrong order
    48/2 = 24 clips in May.   48/2 = 24 clips in May.              72                  0       repeated
    Tom is a terp.   Every terp is a brim.   Every brim is a lem.  Tom is a lem.       1
    Every terp is a brim.   Tom is a terp.   Every brim is a lem.  Tom is a lem.       1/3
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from latentplan.problems.answers import NUMBER, AnswerKind
from latentplan.problems.problem import Problem
from latentplan.rewards.answer_rewards import when_correct
from latentplan.rewards.contract import named_reward, plan_columns
from latentplan.rewards.plan_graph import CONSTANTS
from latentplan.rewards.sentence_parsing import (
    Calculation,
    Clause,
    QuestionFacts,
    Relation,
    Statement,
    Thing,
    clauses_of,
    facts_of_question,
    is_reference,
    relations_of,
    statement_of,
)

STATED_WEIGHT = 0.5
"""How far a word or a number that is merely stated makes a link, since nothing says where it comes from; the
result of a calculation that cannot be read likewise. Two make a whole link, as does that of one that can
be read, the end of a relation, or a reference."""
ANSWER = -1
"""The place that stands for the answer, after all clauses."""


@dataclass
class Carried:
    """A clause in its chain.

    Attributes:
        step: the step that it belongs to, from 0.
        takes, gives: its things; numbers with how often they are taken.
        support: how well known what it takes is, in [0, 1].
        flaw: why it is worth nothing, whatever comes after it; else empty.
        new: whether it says more than the question, or than one earlier step.
        weight: of each thing that it hands on, references apart.
        onward: by the place of the clause that takes something from it, or `ANSWER`, what that is.
        reaches_answer: whether the answer rests on it.
    """

    step: int
    takes: Counter[Thing] = field(default_factory=Counter)
    gives: frozenset[Thing] = frozenset()
    support: float = 0.0
    flaw: str = ""
    new: bool = True
    weight: float = 1.0
    onward: dict[int, list[Thing]] = field(default_factory=lambda: defaultdict(list))
    reaches_answer: bool = False

    def strength(self, target: int) -> float:
        """Returns the strength of the link to `target`, in (0, 1]."""
        weights = (1.0 if is_reference(thing) else self.weight for thing in self.onward[target])
        return min(1.0, sum(weights))

    @property
    def score(self) -> float:
        """Support, times what is taken up of it, halved where the answer does not rest on it."""
        taken_up = max(map(self.strength, self.onward), default=0.0)
        return 0.0 if self.flaw else self.support * taken_up * (1.0 if self.reaches_answer else 0.5)

    @property
    def remark(self) -> str:
        """Why the score is 0; empty where it is not."""
        if self.score:
            return ""
        if self.flaw or not self.new:
            return self.flaw or "says nothing new"
        return "starts from nothing that is known" if not self.support else "nothing takes it up"


class Chain:
    """The clauses of a plan, added in their order.

    Args:
        facts: what the question says.
        modulus: of the arithmetic, where it has one.
    """

    def __init__(self, facts: QuestionFacts, modulus: int | None = None):
        self.facts, self.modulus = facts, modulus
        self.clauses: list[Carried] = []
        self._known: dict[Thing, float] = dict.fromkeys(facts.things, 1.0)
        self._relations: set[Relation] = set()
        self._said: list[frozenset[Thing]] = [facts.things]
        self._seen: set[object] = set()
        self._givers: dict[Thing, list[int]] = defaultdict(list)
        self._uses: Counter[tuple[int, Thing]] = Counter()

    def add_unreadable(self, step: int) -> None:
        """Adds a step that says nothing."""
        self.clauses.append(Carried(step, flaw="cannot be read"))

    def add(self, step: int, clause: Clause) -> None:
        """Adds the next clause, of the same step as the one before or of a later one."""
        carried = _READERS[type(clause)](self, step, clause)
        identity = _identity(clause)
        if identity in self._seen:
            carried.flaw = "repeats an earlier step"
        self._seen.add(identity)
        place = len(self.clauses)
        self.clauses.append(carried)
        if carried.flaw:
            return
        for thing, times in carried.takes.items() if carried.new else ():
            self._hand_on(thing, place, times)
        for thing in carried.gives:
            self._givers[thing].append(place)
            self._known[thing] = max(self._known.get(thing, 0.0), carried.support)

    def close(self, answer: str | None, kind: AnswerKind = NUMBER) -> None:
        """Hands on to the answer what it takes, and traces back which clauses it rests on."""
        subject = self._close_on(answer, kind) if answer is not None else None
        for clause in reversed(self.clauses):
            clause.reaches_answer = any(
                target == ANSWER or self.clauses[target].reaches_answer for target in clause.onward
            )
        starts = (clause.takes for clause in self.clauses if clause.reaches_answer)
        if subject is not None and not any(subject in takes for takes in starts):
            for clause in self.clauses:
                clause.reaches_answer = False

    def _calculation(self, step: int, clause: Calculation) -> Carried:
        operands, flaw = clause.operands, ""
        if clause.is_false(self.modulus):
            flaw = "does not come out"
        elif set(operands) <= set(clause.results):
            flaw = "says nothing new"
        known = (operand in CONSTANTS or self._known.get(operand, 0.0) for operand in operands)
        support = sum(known) / len(operands)
        weight = 1.0 if clause.equations else STATED_WEIGHT
        return Carried(step, Counter(operands), frozenset(clause.results), support, flaw, weight=weight)

    def _relation(self, step: int, clause: Relation) -> Carried:
        ends: Counter[Thing] = Counter([clause.subject])
        flaw = ""
        if clause not in self.facts.relations:
            premises = (said.object for said in self._relations if said.subject == clause.subject)
            middle = [word for word in premises if Relation(word, clause.object) in self._relations]
            ends.update([min(middle), clause.object] if middle else [])
            flaw = "" if middle else "follows from nothing before it"
        self._relations |= set() if flaw else {clause}
        return Carried(step, ends, frozenset([clause.object]), float(not flaw), flaw)

    def _statement(self, step: int, clause: Statement) -> Carried:
        things = frozenset(map(abs, clause.numbers)) | clause.words
        said = things | clause.references
        earlier = {reference for reference in clause.references if int(reference[1:]) <= step}
        takes = (things & self._known.keys()) | earlier
        carried = Carried(step, Counter(takes), (things - takes) | {f"#{step + 1}"}, weight=STATED_WEIGHT)
        right_references = len(earlier) / len(clause.references) if clause.references else 1.0
        carried.support = right_references * max(
            (self._known.get(thing, 0.0) for thing in takes), default=0.0
        )
        carried.new = not any(said <= other for other in self._said)
        self._said.append(said)
        return carried

    def _hand_on(self, thing: Thing, target: int, times: int = 1) -> bool:
        """Hands on from those that give `thing`, the least used, then the latest first; False without one."""
        givers = sorted(self._givers.get(thing, ()), key=lambda place: (self._uses[place, thing], -place))
        for place in givers[:times]:
            self._uses[place, thing] += 1
            self.clauses[place].onward[target].append(thing)
        return bool(givers)

    def _close_on(self, answer: str, kind: AnswerKind) -> Thing | None:
        """Hands on to an answer; where it is `X is a Y`, X is what the chain has to start from."""
        number, relations = kind.number(answer), relations_of(answer) if self.facts.relations else ()
        if number is not None:
            self._hand_on_or_close([abs(number)])
        elif kind.is_conclusion(answer):
            self._hand_on_or_close(self.facts.things, given=False)
            self._conclude()
        elif relations:
            self._hand_on_or_close([relations[-1].object])
            return relations[-1].subject
        else:
            self._hand_on_or_close(statement_of(answer).words)
        return None

    def _hand_on_or_close(self, things: Iterable[Thing], given: bool = True) -> None:
        """Hands on each thing from the clause that gives it, else from the last with it that says more."""
        last = {thing: place for place, clause in self._telling() for thing in clause.takes}
        for thing in things:
            if not (given and self._hand_on(thing, ANSWER)) and thing in last:
                self.clauses[last[thing]].onward[ANSWER].append(thing)

    def _conclude(self) -> None:
        """Hands on to a yes or no, which the last step concludes from those before it."""
        for place, clause in self._telling():
            drawn = [thing for thing in clause.takes if thing in self._givers]
            if place == len(self.clauses) - 1 and drawn:
                clause.onward[ANSWER] += drawn

    def _telling(self) -> list[tuple[int, Carried]]:
        places = enumerate(self.clauses)
        return [(place, clause) for place, clause in places if clause.new and not clause.flaw]


_READERS: dict[type, Callable[..., Carried]] = {
    Calculation: Chain._calculation,
    Relation: Chain._relation,
    Statement: Chain._statement,
}


def _identity(clause: Clause) -> object:
    """Returns what is equal for clauses that say the same, whatever steps they refer to."""
    if isinstance(clause, Calculation):
        return frozenset(clause.operands), clause.results
    if isinstance(clause, Statement):
        return tuple(sorted(clause.numbers)), clause.words, clause.references and not clause.words
    return clause


@named_reward("coherence_natural")
def coherence_natural(
    prompts: Sequence[str],
    completions: Sequence[str],
    decoded_steps: Sequence[Sequence[str] | None] | None = None,
    question: Sequence[str] | None = None,
    modulus: Sequence[int | None] | None = None,
    answer: Sequence[str | None] | None = None,
    problems: Sequence[Problem] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Returns `natural_coherence` of each trajectory; None without a plan."""
    columns = plan_columns(prompts, completions, decoded_steps, question, modulus, answer, problems)
    return [
        None if steps is None else natural_coherence(steps, kind.extract(completion), text, base, kind)
        for completion, steps, text, base, kind in columns
    ]


coherence_natural_if_correct = when_correct(coherence_natural)


def natural_coherence(
    steps: Sequence[str],
    answer: str | None,
    question: str,
    modulus: int | None = None,
    kind: AnswerKind = NUMBER,
) -> float:
    """Returns the score of `read_natural`, in [0, 1]."""
    clauses = _chain(steps, answer, question, modulus, kind).clauses
    return fmean(clause.score for clause in clauses) if clauses else 0.0


@dataclass(frozen=True)
class Link:
    """What one step hands on to a later one, or to the answer.

    Attributes:
        source: the step that gives it, from 0.
        target: the step that takes it; None for the answer.
        things: what is carried, as text: numbers, stems of words, `#1` for what step 1 found.
        strength: in (0, 1].
    """

    source: int
    target: int | None
    things: tuple[str, ...]
    strength: float


@dataclass(frozen=True)
class NaturalReading:
    """A plan, step by step.

    Attributes:
        score: the natural coherence, in [0, 1].
        steps: `[steps]`, the mean over the clauses of each step.
        remarks: `[steps]`, why a step earns nothing; empty where it earns something.
        links: what is carried from which step to which, in the order of the steps.
    """

    score: float
    steps: tuple[float, ...]
    remarks: tuple[str, ...]
    links: tuple[Link, ...]


def read_natural(
    steps: Sequence[str],
    answer: str | None,
    question: str,
    modulus: int | None = None,
    kind: AnswerKind = NUMBER,
) -> NaturalReading:
    """Returns the score of each step of a plan and the links between them, for drawings and the inspector.

    Args:
        steps: the decoded steps, one text each.
        answer: the predicted answer without its marker; None where there is none.
        question: in words.
        modulus: of the arithmetic, where it has one.
        kind: of the answer.
    """
    clauses = _chain(steps, answer, question, modulus, kind).clauses
    of_steps = [[clause for clause in clauses if clause.step == step] for step in range(len(steps))]
    return NaturalReading(
        score=fmean(clause.score for clause in clauses) if clauses else 0.0,
        steps=tuple(fmean(clause.score for clause in of_step) for of_step in of_steps),
        remarks=tuple(_remark(of_step) for of_step in of_steps),
        links=tuple(_links(clauses)),
    )


def _chain(
    steps: Sequence[str], answer: str | None, question: str, modulus: int | None, kind: AnswerKind
) -> Chain:
    facts = facts_of_question(question)
    chain = Chain(facts, modulus)
    for step, text in enumerate(steps):
        clauses = clauses_of(text, bool(facts.relations))
        for clause in clauses:
            chain.add(step, clause)
        if not clauses:
            chain.add_unreadable(step)
    chain.close(answer, kind)
    return chain


def _remark(clauses: Sequence[Carried]) -> str:
    remarks = dict.fromkeys(clause.remark for clause in clauses)
    return "" if "" in remarks else "; ".join(remarks)


def _links(clauses: Sequence[Carried]) -> list[Link]:
    found: dict[tuple[int, int], tuple[list[Thing], float]] = {}
    for clause in clauses:
        for place in clause.onward:
            target = ANSWER if place == ANSWER else clauses[place].step
            if target == clause.step:
                continue
            things, strength = found.get((clause.step, target), ([], 0.0))
            found[clause.step, target] = (
                [*things, *clause.onward[place]],
                max(strength, clause.strength(place)),
            )
    return [
        Link(source, None if target == ANSWER else target, tuple(dict.fromkeys(map(str, things))), strength)
        for (source, target), (things, strength) in found.items()
    ]
