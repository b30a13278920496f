"""Problems beside themselves with one number changed, for causal tests: what should the answer be then?

    a dial shows 7 . first add 3 . second double it . reading ?      9
    a dial shows 7 . first add 1 . second double it . reading ?      5

The words are the same, and so is the order of the labelled steps. The partner may be of any split: nothing is
trained on it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from latentplan.problems.minigsm.generate import Draft, World, open_world, tell_problems
from latentplan.problems.minigsm.presets import MinigsmConfig, Split
from latentplan.problems.problem import Problem

_PATIENCE = 50


def generate_pairs(
    config: MinigsmConfig, *, split: Split, count: int, seed: int
) -> Iterator[tuple[Problem, Problem | None]]:
    """The problems of `generate` with equal arguments, each with a partner that differs in one number.

    A partner has another answer and as many labelled steps; None where none was found. Raises what
    `generate` raises.
    """
    world = _Remembering(open_world(config))
    for problem in tell_problems(world, config, split=split, count=count, seed=seed):
        yield problem, world.partner(problem, config)


class _Remembering:
    """A world that remembers its last draft and how it was told; it is its own draft."""

    def __init__(self, world: World):
        self.world = world

    def draw(self, rng: random.Random, num_steps: int) -> _Remembering | None:
        """A draft of the world within."""
        self.draft: Draft | None = self.world.draw(rng, num_steps)
        return None if self.draft is None else self

    @property
    def canonical(self) -> str:
        """That of the last draft."""
        return self._last.canonical

    def tell(self, rng: random.Random) -> Problem | None:
        """The last draft in words."""
        self.state = rng.getstate()
        return self._last.tell(rng)

    def others(self, rng: random.Random, config: MinigsmConfig) -> Iterator[Draft]:
        """Those of the last draft."""
        return self._last.others(rng, config)

    def tell_other(self, other: Draft, rng: random.Random) -> Problem | None:
        """`other` in the words of the last draft."""
        return self._last.tell_other(other, rng)

    def partner(self, problem: Problem, config: MinigsmConfig) -> Problem | None:
        """A partner of the problem that was told last."""
        changes = random.Random(problem.question)
        for other in islice(self.others(changes, config), _PATIENCE):
            words = random.Random()
            words.setstate(self.state)
            partner = self.tell_other(other, words)
            if partner is not None and partner.answer != problem.answer:
                return partner
        return None

    @property
    def _last(self) -> Draft:
        assert self.draft is not None
        return self.draft
