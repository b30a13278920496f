"""Does the answer follow the latents? Those of a question that differs in one number, spliced in.

The question stays; some or all of its latents come from the partner's chain. Where the answer
becomes the partner's, the latents cause it; where it stays, the answer comes from the question's own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from latentplan.evaluation.diagnosis import findings as figures
from latentplan.evaluation.diagnosis import findings as thresholds
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.findings import (
    FAILED,
    SOUND,
    UNCLEAR,
    Figure,
    Finding,
    at_least,
    at_most,
    not_applicable,
)
from latentplan.problems.answers import kind_of
from latentplan.rollout.edits import replaced
from latentplan.rollout.interventions import completions_with, intact, regenerate
from latentplan.rollout.solve import GreedyChains

NAME = "faithfulness"
MOVED = "the partner's answer"
STAYED = "its own answer"
NEITHER = "another answer"
_FEWEST, _HARDLY_ANY = 20, 0.05
_EARLIER = "all latents spliced, an earlier step edited"
_LAST = "all latents spliced, the last step edited"
_HELD = "the edited step spliced, later ones held"
_AGAIN = "the edited step spliced, later ones thought again"


@dataclass(frozen=True)
class Pairs:
    """Questions and their partners that the model answers as it should, row by row.

    Attributes:
        questions: in words.
        indices: of the questions among the problems.
        own, foreign: their chains, and those of the partners.
        answers, other_answers: theirs, and those of the partners.
        edited: the first step that differs between the two, by what the decoder reads or else by the labels;
            None where that is not known, or the chains differ in length.
        last: the last step of each chain; slots after it, in a model that always uses all, stand for no step.
    """

    questions: list[str]
    indices: list[int]
    own: GreedyChains
    foreign: GreedyChains
    answers: list[str]
    other_answers: list[str]
    edited: list[int | None]
    last: list[int]

    def select(self, rows: Sequence[int]) -> Pairs:
        """Returns some of the rows."""
        return Pairs(
            [self.questions[row] for row in rows],
            [self.indices[row] for row in rows],
            self.own.select(rows),
            self.foreign.select(rows),
            [self.answers[row] for row in rows],
            [self.other_answers[row] for row in rows],
            [self.edited[row] for row in rows],
            [self.last[row] for row in rows],
        )


def faithfulness(evaluated: EvaluatedModel) -> Finding:
    """Measures what the answer becomes when latents of the partner are spliced in: all, or one step."""
    if not evaluated.has_latents:
        return not_applicable(NAME, f"{evaluated.model.reasoner.config.method} has no latents to edit")
    if not any(evaluated.partners):
        return not_applicable(NAME, "no question has a partner that differs in one number")
    pairs = collect_pairs(evaluated)
    if not pairs.indices:
        return not_applicable(
            NAME, "there is no pair of questions of which the model gets both right, with different answers"
        )
    found = _splice(evaluated, pairs, pairs.foreign)
    spliced = _figures("all latents spliced", found)
    status = at_least(spliced[0], thresholds.FOLLOWED_EDITS) if len(pairs.indices) >= _FEWEST else UNCLEAR
    steps = [*_by_place(evaluated, pairs, found), *_of_steps(evaluated, pairs)]
    return Finding(
        NAME,
        status,
        _verdict(status, spliced, steps),
        "with all latents from a question that differs in one number, the answer must become that question's "
        f"in at least {thresholds.FOLLOWED_EDITS:.0%} of the pairs of which the model answers both",
        [*spliced, *steps],
    )


def collect_pairs(evaluated: EvaluatedModel) -> Pairs:
    """Returns the pairs of which the model answers both rightly, or, where that is not known, differently."""
    partnered = {index: partner for index, partner in enumerate(evaluated.partners) if partner is not None}
    others = evaluated.greedy_chains([partner.question for partner in partnered.values()])
    keys = list(partnered)
    rows_of_others = {keys[each]: row for row, each in enumerate(others.indices)}
    kept, foreign, answers, other_answers = [], [], [], []
    for row, index in enumerate(evaluated.greedy.indices):
        other = rows_of_others.get(index)
        if other is None:
            continue
        partner = partnered[index]
        problem = evaluated.problems[index]
        own, kind = problem.answer, problem.kind
        theirs = kind.extract(others.solutions[other].completion)
        if not evaluated.correct[row] or theirs is None or kind.matches(theirs, own):
            continue
        expected = partner.answer
        if expected is not None and not kind_of(expected, problem.answer_kind).matches(theirs, expected):
            continue
        kept.append(row)
        foreign.append(other)
        answers.append(own)
        other_answers.append(theirs)
    indices = [evaluated.greedy.indices[row] for row in kept]
    own_chains, foreign_chains = evaluated.chains.select(kept), others.select(foreign)
    return Pairs(
        [evaluated.problems[index].question for index in indices],
        indices,
        own_chains,
        replace(foreign_chains, indices=indices),
        answers,
        other_answers,
        *edited_steps(evaluated, indices, own_chains, foreign_chains),
    )


def edited_steps(
    evaluated: EvaluatedModel, indices: Sequence[int], own: GreedyChains, foreign: GreedyChains
) -> tuple[list[int | None], list[int]]:
    """Returns the first step that differs, and the last one."""
    edited: list[int | None] = []
    last: list[int] = []
    final = evaluated.model.reasoner.config.max_latent_steps - 1
    for row, index in enumerate(indices):
        partner = evaluated.partners[index]
        assert partner is not None
        mine: Sequence[str] = evaluated.problems[index].steps
        theirs: Sequence[str] = partner.steps
        if evaluated.model.step_decoder is not None:
            mine, theirs = own.plans[row] or (), foreign.plans[row] or ()
        equal = torch.equal(own.slot_mask[row], foreign.slot_mask[row]) and len(mine) == len(theirs)
        differing = [step for step, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]]
        known = evaluated.latents_are_steps and equal and differing
        edited.append(min(differing[0], final) if known else None)
        last.append(min(len(mine) - 1, final))
    return edited, last


def _by_place(evaluated: EvaluatedModel, pairs: Pairs, found: Sequence[str]) -> list[Figure]:
    """Returns the splice of all latents, apart for edits of the last step, which can be computed while
    answering.
    """
    last = [step == end for step, end in zip(pairs.edited, pairs.last, strict=True)]
    known = [step is not None for step in pairs.edited]
    groups = {_EARLIER: [a and not b for a, b in zip(known, last, strict=True)], _LAST: last}
    return [
        figure
        for name, chosen in groups.items()
        if any(chosen)
        for figure in _figures(name, [each for each, taken in zip(found, chosen, strict=True) if taken])
    ]


def _of_steps(evaluated: EvaluatedModel, pairs: Pairs) -> list[Figure]:
    """Returns the same for single steps, over the pairs whose edited step is not the last of the chain."""
    size = evaluated.model.reasoner.config.latents_per_step
    early = [row for row, step in enumerate(pairs.edited) if step is not None and step < pairs.last[row]]
    if not early:
        return []
    some = pairs.select(early)
    first = torch.tensor(some.edited)
    last = torch.tensor(some.last)

    def one_step(step: torch.Tensor) -> GreedyChains:
        here = (torch.arange(some.own.latents.shape[1]) // size) == step.unsqueeze(1)
        return replace(some.own, latents=replaced(some.own.latents, some.foreign.latents, here))

    held = (first + 1) * size
    variants = {
        _HELD: one_step(first),
        _AGAIN: regenerate(evaluated.model, some.questions, one_step(first), held, evaluated.batch_size),
        "the last step spliced": one_step(last),
    }
    return [
        figure
        for name, chains in variants.items()
        for figure in _figures(name, _splice(evaluated, some, chains))
    ]


def _splice(evaluated: EvaluatedModel, pairs: Pairs, chains: GreedyChains) -> list[str]:
    """Says what each answer becomes with these chains: `MOVED`, `STAYED` or `NEITHER`."""
    completions = completions_with(
        evaluated.model,
        evaluated.problems,
        chains,
        intact,
        seed=evaluated.seed,
        max_new_tokens=evaluated.max_new_tokens,
        batch_size=evaluated.batch_size,
    )
    names = [evaluated.problems[index].answer_kind for index in pairs.indices]

    def gives(answers: Sequence[str]) -> list[bool]:
        rows = zip(completions, answers, names, strict=True)
        return [kind_of(answer, name).is_correct(completion, answer) for completion, answer, name in rows]

    moved, stayed = gives(pairs.other_answers), gives(pairs.answers)
    return [MOVED if other else STAYED if own else NEITHER for other, own in zip(moved, stayed, strict=True)]


def _figures(name: str, found: Sequence[str]) -> list[Figure]:
    return [
        figures.share(f"{name}: {outcome}", [each == outcome for each in found])
        for outcome in (MOVED, STAYED, NEITHER)
    ]


def _verdict(status: str, spliced: Sequence[Figure], steps: Sequence[Figure]) -> str:
    moved, stayed, _ = spliced
    start = {
        SOUND: "the answer follows the latents",
        FAILED: "the answer does not follow the latents",
    }.get(status, "whether the answer follows the latents is not decided")
    parts = [
        f"{start}: it becomes the partner's in {moved.text}, stays in {stayed.text} of {moved.count} pairs"
    ]
    if at_most(moved, _HARDLY_ANY) == SOUND:
        return parts[0]
    by_name = {figure.name: figure for figure in steps}
    last = by_name.get(f"{_LAST}: {STAYED}")
    if last is not None and at_least(last, thresholds.COMPUTED_WHILE_ANSWERING) == SOUND:
        parts.append(
            f"where the edit concerns the last step it stays in {last.text}: there the last step is computed "
            "while answering, from the question"
        )
    if f"{_AGAIN}: {MOVED}" in by_name:
        held, again = by_name[f"{_HELD}: {MOVED}"], by_name[f"{_AGAIN}: {MOVED}"]
        parts.append(
            f"after one edited step it becomes the partner's in {held.text} with the later steps held, in "
            f"{again.text} when they are thought again"
        )
    return "; ".join(parts)
