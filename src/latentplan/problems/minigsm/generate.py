"""Draw problems: deterministic in the seed, distinct within a call, in splits that no seed can mix."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Protocol

from latentplan.problems.minigsm.clock import ClockDomain
from latentplan.problems.minigsm.presets import SPLITS, MinigsmConfig, Split, fingerprint, split_of
from latentplan.problems.minigsm.word_problems import WordDomain
from latentplan.problems.problem import Problem

_PATIENCE = 20_000


class SpaceExhaustedError(ValueError):
    """More distinct problems were requested than the split holds; says how many there are."""


class Draft(Protocol):
    """A problem before its words."""

    @property
    def canonical(self) -> str:
        """What decides the split: graph and numbers, no words."""

    def render(self, rng: random.Random) -> Problem | None:
        """Returns the problem in words that `rng` chooses; None if the draft turns out not to make one."""

    def others(self, rng: random.Random, config: MinigsmConfig) -> Iterator[Any]:
        """Drafts that differ in exactly one number, in random order; not all of them make a problem."""

    def render_other(self, other: Any, rng: random.Random) -> Problem | None:
        """Returns one of `others` in the words in which `render` tells this one with an `rng` in the same
        state.
        """


class Domain(Protocol):
    """A source of drafts."""

    def draw(self, rng: random.Random, num_steps: int) -> Draft | None:
        """Returns a draft whose labelled chain has `num_steps` steps; None if its numbers came out badly."""


def generate(config: MinigsmConfig, *, split: Split, count: int, seed: int) -> Iterator[Problem]:
    """Yield `count` distinct problems of one split; equal arguments give equal problems.

    A problem belongs to one split by its canonical form (graph and numbers), whatever the seed and the words.
    With `distinct="problem"` no canonical form comes twice, with `"question"` no question does.

    Raises:
        ValueError: at once, for an unknown split, a negative count, or settings that leave no problems.
        SpaceExhaustedError: while iterating, when the split has no further problem of some number of steps.
    """
    return render_problems(open_domain(config), config, split=split, count=count, seed=seed)


def open_domain(config: MinigsmConfig) -> Domain:
    """Returns the domain that the settings name. Raises ValueError on settings that leave no problems."""
    return ClockDomain(config) if config.world == "clock" else WordDomain(config)


def render_problems(
    domain: Domain, config: MinigsmConfig, *, split: Split, count: int, seed: int
) -> Iterator[Problem]:
    """Generates as `generate` does, from a domain that is open; raises what it raises, too."""
    if split not in SPLITS:
        raise ValueError(f"minigsm: split is {split!r}; it must be one of {', '.join(SPLITS)}")
    if count < 0:
        raise ValueError(f"minigsm: count is {count}; it must be 0 or more")
    return _generate(domain, config, split, count, random.Random(f"minigsm {split} {seed}"))


def _generate(
    domain: Domain, config: MinigsmConfig, split: Split, count: int, rng: random.Random
) -> Iterator[Problem]:
    seen: dict[int, set[int]] = {num_steps: set() for num_steps in config.step_counts}
    for _ in range(count):
        num_steps = rng.choices(config.step_counts, weights=config.step_weights)[0]
        yield _next(domain, config, split, num_steps, seen[num_steps], rng)


def _next(
    domain: Domain, config: MinigsmConfig, split: Split, num_steps: int, seen: set[int], rng: random.Random
) -> Problem:
    by_problem = config.distinct == "problem"
    for _ in range(_PATIENCE):
        draft = domain.draw(rng, num_steps)
        if draft is None:
            continue
        canonical = draft.canonical
        if split_of(canonical) != split or (by_problem and fingerprint(canonical) in seen):
            continue
        problem = draft.render(rng)
        if problem is None:
            continue
        identity = fingerprint(canonical if by_problem else problem.question)
        if identity not in seen:
            seen.add(identity)
            return problem
    raise SpaceExhaustedError(
        f"minigsm: with these settings the {split} split has only {len(seen):,} distinct {config.distinct}s "
        f"of {num_steps} step(s): ask for fewer, widen the settings, or lower that entry of step_weights"
    )
