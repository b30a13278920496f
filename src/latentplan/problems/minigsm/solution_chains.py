"""Every valid chain of a graph: all orders of its steps, all ways to group its sums and products.

A chain is a sequence of equations on numbers of the question, constants and earlier results, which computes
every quantity that it needs once. What counts as a different chain:

- any order in which each step comes after those that it needs;
- the terms of a sum joined two at a time in any grouping: `a+b-c` is `(a+b)-c`, `(a-c)+b` or `a+(b-c)`, or
  `a-(c-b)` where `c` is larger; the factors of a product likewise;
- a sum or product of exactly three as one equation with three operands, `<<16-3-4=9>>`;
- the other decompositions that a template declares, such as `a*(b+c)` and `a*b+a*c`.

The order of operands inside an equation makes no new chain. Every result is positive, and whole unless it is
an amount that may have decimals. All of this depends on little but the graph, so it is worked out once per
graph, as a `PlanTable`; a problem only fills in its numbers.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice

from latentplan.problems.minigsm.expression_graph import Node, Value, children, divide, exact, percent, walk
from latentplan.problems.problem import Chain

MAX_PLANS = 64
"""A problem lists at most this many chains; one with more lists a spread-out selection of them."""

# Which chains keep every result positive depends on the numbers, so a graph keeps more than a problem lists.
_MAX_GRAPH_PLANS = 160

_Term = tuple[int, int, int]  # sign, register (or ~index of a node not yet computed), which terms it joins
_State = tuple[tuple[int, tuple[_Term, ...]], ...]  # the nodes not yet computed, with what is left of them


@dataclass(frozen=True, slots=True)
class Equation:
    """One possible step: operands and result are registers."""

    template: str
    operands: tuple[int, ...]
    result: int
    compute: Callable[..., Value]


def _join(sign: int) -> Callable[[Value, Value], Value]:
    return operator.add if sign > 0 else operator.sub


def _three(signs: tuple[int, ...]) -> Callable[..., Value]:
    return lambda *values: sum(sign * value for sign, value in zip(signs, values, strict=True))


class PlanTable:
    """All chains of one graph, in registers.

    Args:
        graphs: equivalent decompositions, the one that the question tells first.
        may_be_decimal: names of numbers that can have decimals, such as prices.
        operators: the operators that a chain may use, of `+-*/%`.
    """

    def __init__(self, graphs: Sequence[Node], may_be_decimal: frozenset[str], operators: str):
        self.operators = operators
        self.leaves: list[str | int] = []
        self.equations: list[Equation] = []
        self.registers: dict[object, int] = {}
        self.decimal: list[bool] = []
        self._last: list[int] = []
        self._equation_ids: dict[object, int] = {}
        for graph in graphs:
            self._add_leaves(graph, may_be_decimal)
        self.num_leaves = len(self.leaves)
        budget = _MAX_GRAPH_PLANS // len(graphs)
        self.plans: list[tuple[int, ...]] = []
        self.complete = True
        for graph in graphs:
            self._add_plans(graph, budget)
        self.masks = [sum(1 << self.equations[step].result for step in plan) for plan in self.plans]
        self.definitions = self._definitions()

    def chains(self, values: Mapping[str, Value], limit: int) -> list[Chain]:
        """Returns the chains for these numbers, that of the story first, without those that are not valid for
        them.

        `limit` is the largest result allowed. Fewer than `MAX_PLANS` chains are all that there are: where
        that is not known, as the graph has too many that are not valid for these numbers, there are none.
        """
        registers: list[Value] = [values[leaf] if isinstance(leaf, str) else leaf for leaf in self.leaves]
        registers += [1] * (len(self.decimal) - self.num_leaves)
        for register, compute, (first, second, *third) in self.definitions:
            if third:
                registers[register] = compute(registers[first], registers[second], registers[third[0]])
            else:
                registers[register] = compute(registers[first], registers[second])
        invalid = self._invalid(registers, limit)
        valid = [plan for plan, mask in zip(self.plans, self.masks, strict=True) if not mask & invalid]
        if not self.complete and len(valid) < MAX_PLANS:
            return []
        steps = self._steps(valid, [number_text(value) for value in registers])
        chains: dict[Chain, None] = {}
        for plan in valid:
            chains[tuple([steps[step] for step in plan])] = None
            if len(chains) == MAX_PLANS:
                return list(chains)
        return list(chains) if self.complete else []

    def register(self, key: object, operands: Sequence[int], decimal: bool) -> int:
        """Returns the register of this quantity, a new one on the first call."""
        if key not in self.registers:
            self.registers[key] = len(self.decimal)
            self.decimal.append(decimal)
            self._last.append(max(self._last[operand] for operand in operands))
        return self.registers[key]

    def equation(
        self, signs: str, operands: tuple[int, ...], result: int, compute: Callable[..., Value]
    ) -> int:
        """Returns the index of this step, a new one on the first call."""
        key = (signs, operands, result)
        if key not in self._equation_ids:
            self._equation_ids[key] = len(self.equations)
            body = "%s" + "".join(("%%" if sign == "%" else sign) + "%s" for sign in signs)
            body = "%s*%s/100" if signs == "%" else body
            self.equations.append(Equation(f"<<{body}=%s>>", operands, result, compute))
        return self._equation_ids[key]

    def told_order(self, step: int) -> tuple[int, int]:
        """Sorts steps as the question tells them: by the last number that a step needs."""
        equation = self.equations[step]
        return self._last[equation.result], len(equation.operands)

    def _add_leaves(self, graph: Node, may_be_decimal: frozenset[str]) -> None:
        for leaf in walk(graph):
            if not children(leaf) and leaf not in self.registers:
                self.registers[leaf] = len(self.leaves)
                self._last.append(len(self.leaves))
                self.leaves.append(leaf)
                self.decimal.append(leaf in may_be_decimal)

    def _steps(self, plans: Sequence[tuple[int, ...]], texts: Sequence[str]) -> dict[int, str]:
        steps: dict[int, str] = {}
        for step in set().union(*plans):
            equation = self.equations[step]
            steps[step] = equation.template % (
                *[texts[operand] for operand in equation.operands],
                texts[equation.result],
            )
        return steps

    def _add_plans(self, graph: Node, budget: int) -> None:
        # Five terms alone can be joined in 180 ways: no need to count.
        many = any(node[0] in "+*" and len(children(node)) > 4 for node in walk(graph) if children(node))
        plans = [] if many else list(islice(_Search(self, graph).every(), budget + 1))
        if many or len(plans) > budget:
            self.complete = False
            plans = _Search(self, graph, losses=False).spread(budget)
        others = plans[1:]
        random.Random(0).shuffle(others)
        self.plans += plans[:1] + others

    def _definitions(self) -> list[tuple[int, Callable[..., Value], tuple[int, ...]]]:
        """Returns how to compute each register that a plan uses, operands first."""
        first: dict[int, Equation] = {}
        for step in chain.from_iterable(self.plans):
            first.setdefault(self.equations[step].result, self.equations[step])
        return [(register, equation.compute, equation.operands) for register, equation in first.items()]

    def _invalid(self, registers: Sequence[Value], limit: int) -> int:
        bits = 0
        for register, _, _ in self.definitions:
            value = registers[register]
            if not 0 < value <= limit or (
                not isinstance(value, int)
                and value.denominator != 1
                and (not self.decimal[register] or 100 % value.denominator)
            ):
                bits |= 1 << register
        return bits


class _Search:
    """Walks through the ways to compute one graph, writing its steps into a table.

    Without `losses` it leaves out `a-(c-b)`, which is seldom possible.
    """

    def __init__(self, table: PlanTable, graph: Node, losses: bool = True):
        self.table = table
        self.losses = losses
        self.nodes = [node for node in walk(graph) if children(node)]
        self.ids = {node: index for index, node in enumerate(self.nodes)}
        self.known: dict[_State, list[tuple[int, _State]]] = {}
        self.start: _State = tuple((index, self._terms(node)) for index, node in enumerate(self.nodes))

    def every(self) -> Iterator[tuple[int, ...]]:
        """Returns all plans, that of the story first."""
        return self._every(self.start)

    def spread(self, budget: int) -> list[tuple[int, ...]]:
        """Returns at most `budget` plans, the one of the story first, the others from all branches of the
        search.
        """
        told = islice(self.every(), 1)
        return list(dict.fromkeys([*told, *self._spread(self.start, budget, random.Random(0))]))

    def _every(self, state: _State) -> Iterator[tuple[int, ...]]:
        if not state:
            yield ()
        for step, following in self._moves(state):
            for rest in self._every(following):
                yield (step, *rest)

    def _spread(self, state: _State, budget: int, rng: random.Random) -> list[tuple[int, ...]]:
        if not state:
            return [()]
        moves = rng.sample(self._moves(state), len(self._moves(state)))
        found: list[tuple[int, ...]] = []
        for index, (step, following) in enumerate(moves):
            share = math.ceil((budget - len(found)) / (len(moves) - index))
            if share > 0:
                found += [(step, *rest) for rest in self._spread(following, share, rng)]
        return found

    def _terms(self, node: Node) -> tuple[_Term, ...]:
        signs = [sign for sign, _ in node[1]] if node[0] == "+" else [1] * len(children(node))
        terms = enumerate(zip(signs, children(node), strict=True))
        return tuple((sign, self._reference(child), 1 << index) for index, (sign, child) in terms)

    def _reference(self, node: Node) -> int:
        return ~self.ids[node] if node in self.ids else self.table.registers[node]

    def _moves(self, state: _State) -> list[tuple[int, _State]]:
        if state not in self.known:
            moves: list[tuple[int, _State]] = []
            for place, (index, terms) in enumerate(state):
                for step, left in self._steps(index, terms):
                    moves.append((step, self._after(state, place, left)))
            self.known[state] = sorted(moves, key=lambda move: self.table.told_order(move[0]))
        return self.known[state]

    def _after(self, state: _State, place: int, left: tuple[_Term, ...]) -> _State:
        index = state[place][0]
        if len(left) > 1:
            return (*state[:place], (index, left), *state[place + 1 :])
        register, computed = left[0][1], ~index
        return tuple(
            (
                other,
                tuple(
                    (sign, register if reference == computed else reference, mask)
                    for sign, reference, mask in terms
                ),
            )
            for other, terms in state
            if other != index
        )

    def _steps(self, index: int, terms: tuple[_Term, ...]) -> Iterator[tuple[int, tuple[_Term, ...]]]:
        """Yields every step on the computed terms of a node, with the terms that it leaves."""
        ready = [term for term in terms if term[1] >= 0]
        kind = self.nodes[index][0]
        if kind in self.table.operators and kind in "/%" and len(ready) == 2:
            compute = divide if kind == "/" else percent
            yield self._step(index, terms, ready, kind, 1, compute)
        if kind == "*" and "*" in self.table.operators:
            for pair in combinations(ready, 2):
                yield self._step(index, terms, pair, "*", 1, operator.mul)
            if len(ready) == 3 == len(children(self.nodes[index])):
                yield self._step(index, terms, ready, "**", 1, lambda a, b, c: a * b * c)
        if kind == "+":
            yield from self._sums(index, terms, ready)

    def _sums(
        self, index: int, terms: tuple[_Term, ...], ready: list[_Term]
    ) -> Iterator[tuple[int, tuple[_Term, ...]]]:
        for first, second in combinations(ready, 2):
            if first[0] == second[0]:
                if first[0] > 0 or len(terms) > 2:
                    yield from self._sum(index, terms, (first, second), (1, 1), first[0])
                continue
            gain, loss = (first, second) if first[0] > 0 else (second, first)
            yield from self._sum(index, terms, (gain, loss), (1, -1), 1)
            if len(terms) > 2 and self.losses:
                yield from self._sum(index, terms, (loss, gain), (1, -1), -1)
        if len(ready) == 3 == len(children(self.nodes[index])):
            ordered = sorted(ready, key=lambda term: -term[0])
            yield from self._sum(index, terms, ordered, tuple(term[0] for term in ordered), 1)

    def _sum(
        self,
        index: int,
        terms: tuple[_Term, ...],
        joined: Sequence[_Term],
        signs: tuple[int, ...],
        sign: int,
    ) -> Iterator[tuple[int, tuple[_Term, ...]]]:
        written = "".join("+-"[sign < 0] for sign in signs[1:])
        if set(written) <= set(self.table.operators):
            compute = _join(signs[1]) if len(signs) == 2 else _three(signs)
            yield self._step(index, terms, joined, written, sign, compute)

    def _step(
        self,
        index: int,
        terms: tuple[_Term, ...],
        joined: Sequence[_Term],
        written: str,
        sign: int,
        compute: Callable[..., Value],
    ) -> tuple[int, tuple[_Term, ...]]:
        operands = tuple(reference for _, reference, _ in joined)
        mask = sum(mask for _, _, mask in joined)
        node = self.nodes[index]
        decimals = [self.table.decimal[operand] for operand in operands]
        decimal = decimals[0] and not decimals[1] if node[0] == "/" else any(decimals)
        result = self.table.register((node, sign, mask), operands, decimal)
        step = self.table.equation(written, operands, result, compute)
        place = min(terms.index(term) for term in joined)
        left = [(sign, result, mask) if here == place else term for here, term in enumerate(terms)]
        return step, tuple(term for here, term in enumerate(left) if here == place or term not in joined)


def number_text(value: Value) -> str:
    """Writes a number as it stands in an equation: `12`, `2.5`, `0.25`; at most two decimals."""
    value = exact(value)
    if isinstance(value, int):
        return str(value)
    return f"{float(value):.2f}".rstrip("0")
