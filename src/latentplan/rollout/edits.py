"""What the latents of a question are replaced by, to see what becomes of the answer.

An intervention gives the latents `[rows, slots, hidden]` and the slot mask `[rows, slots]` that some rows of
the greedy chains get instead of their own. Masked slots do not count as positions, as in a shorter chain.

What can be done to a chain of latent steps before the answer is written: each edit a small function.

A chain is `[steps, latents_per_step, hidden]`; steps are counted from 1, as on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from latentplan.modeling import counter_rng
from latentplan.modeling.counter_rng import Draws, Stream
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.thinking import Given, think
from latentplan.problems.problem import Problem
from latentplan.rollout.engine import answer_from
from latentplan.rollout.solve import GreedyChains, question_batch

Chains = tuple[torch.Tensor, torch.Tensor]
Intervention = Callable[[GreedyChains, slice, int], Chains]
"""Of the chains, the rows and the seed."""


def intact(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """The latents `[rows, slots, hidden]` and slot mask `[rows, slots]` as they are."""
    return chains.latents[rows], chains.slot_mask[rows]


def zero(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Zeros in the slots that were in use."""
    return torch.zeros_like(chains.latents[rows]), chains.slot_mask[rows]


def same_norm_noise(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """In each slot, Gaussian noise of the latent's own norm, from the seed and the question's place."""
    keys = counter_rng.derive(seed, Stream.INTERVENTION, torch.tensor(chains.places[rows]))
    return counter_rng.of_same_norm(keys, chains.latents[rows]), chains.slot_mask[rows]


def of_another_question(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Latents and slots in use of the question before, in the order of length; the first gets the last's."""
    places = torch.arange(len(chains.places))[rows] - 1
    return chains.latents[places], chains.slot_mask[places]


def of_an_equal_chain(chains: GreedyChains, rows: slice, seed: int) -> Chains:
    """Latents of another question that uses as many slots, so that their number says nothing.

    Where there is none, those of the question before, as in `of_another_question`.
    """
    donors = torch.tensor(_donors(chains.slot_mask.sum(dim=1).tolist()))[rows]
    return chains.latents[donors], chains.slot_mask[donors]


def first_steps(count: int, latents_per_step: int) -> Intervention:
    """Keeps the first `count` latent steps of each chain."""

    def keep(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        mask = chains.slot_mask[rows].clone()
        mask[:, count * latents_per_step :] = 0
        return chains.latents[rows], mask

    return keep


def last_step_only(latents_per_step: int) -> Intervention:
    """Keeps the last latent step in use and none before it."""

    def keep(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        mask = chains.slot_mask[rows].clone()
        places = torch.arange(mask.shape[1])
        mask[places < mask.sum(dim=1, keepdim=True) - latents_per_step] = 0
        return chains.latents[rows], mask

    return keep


def all_but_last_step(latents_per_step: int) -> Intervention:
    """Keeps all latent steps in use but the last."""

    def keep(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        mask = chains.slot_mask[rows].clone()
        places = torch.arange(mask.shape[1])
        mask[places >= mask.sum(dim=1, keepdim=True) - latents_per_step] = 0
        return chains.latents[rows], mask

    return keep


def reversed_steps(latents_per_step: int) -> Intervention:
    """The latent steps in use from last to first; the latents of one step keep their order."""
    return _in_order(latents_per_step, lambda steps: range(steps - 1, -1, -1))


def rotated_steps(latents_per_step: int) -> Intervention:
    """The last latent step in use first, then the others in their order."""
    return _in_order(latents_per_step, lambda steps: [steps - 1, *range(steps - 1)])


def completions_with(
    model: LoadedModel,
    problems: Sequence[Problem],
    chains: GreedyChains,
    intervention: Intervention,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """The greedy completion of each chain's question after an intervention, in the order of the chains."""
    completions: list[str] = []
    for start in range(0, len(chains.places), batch_size):
        rows = slice(start, start + batch_size)
        questions = [problems[place].question for place in chains.places[rows]]
        completions += _answers(model, questions, *intervention(chains, rows, seed), max_new_tokens)
    return completions


@torch.no_grad()
def think_on(
    model: LoadedModel, questions: Sequence[str], chains: GreedyChains, held: torch.Tensor, batch_size: int
) -> GreedyChains:
    """The chains with the slots after the first `held` `[rows]` of each computed again, at the means.

    What was held may be foreign: this shows whether later latents follow from earlier ones. As many slots
    are in use as before, and the plans are no longer known.
    """
    latents = chains.latents.clone()
    for start in range(0, len(latents), batch_size):
        rows = slice(start, start + batch_size)
        ids, mask = question_batch(model, questions[rows])
        slot_mask, first = chains.slot_mask[rows].to(ids.device), held[rows].to(ids.device)
        clamped = torch.arange(latents.shape[1], device=ids.device) < first.unsqueeze(1)
        given = Given.intervened(latents[rows].to(ids.device), clamped)
        state = model.reasoner.start(ids, mask)
        chain = think(model.reasoner, state, LatentLength(slot_mask), Draws(), 0.0, given)
        latents[rows] = chain.latents.to(latents)
    return replace(chains, latents=latents, plans=[None] * len(latents))


def _in_order(latents_per_step: int, order: Callable[[int], Sequence[int]]) -> Intervention:
    def reorder(chains: GreedyChains, rows: slice, seed: int) -> Chains:
        latents, mask = chains.latents[rows].clone(), chains.slot_mask[rows]
        by_step = latents.unflatten(1, (-1, latents_per_step))
        for row, used in enumerate((mask.sum(dim=1) // latents_per_step).tolist()):
            by_step[row, :used] = by_step[row, list(order(used))] if used else by_step[row, :0]
        return latents, mask

    return reorder


def _donors(slots: Sequence[int]) -> list[int]:
    """For each chain the one before it with as many slots; the first of these gets the last."""
    donors = [place - 1 for place in range(len(slots))]
    for size in set(slots):
        places = [place for place, used in enumerate(slots) if used == size]
        if len(places) > 1:
            for index, place in enumerate(places):
                donors[place] = places[index - 1]
    return donors


def _answers(
    model: LoadedModel,
    questions: Sequence[str],
    latents: torch.Tensor,
    slot_mask: torch.Tensor,
    max_new_tokens: int,
) -> list[str]:
    ids, mask = question_batch(model, questions)
    unused_keys = torch.zeros(len(questions), dtype=torch.long, device=ids.device)
    answer_ids = answer_from(
        model.reasoner,
        ids,
        mask,
        latents.to(ids.device),
        slot_mask.to(ids.device),
        unused_keys,
        Sampling.greedy(max_new_tokens),
    )
    return model.tokenizer.batch_decode(answer_ids, skip_special_tokens=True)


@dataclass(frozen=True)
class Edit:
    """One thing to do.

    Attributes:
        kind: a name in `EDITS`.
        steps: which steps; for `keep` how many. Empty where a splice or a move is of the whole chain.
        seed: of the noise.
        question: `splice`: whose steps are put in.
        from_step: `splice`: which of them; None takes the step of the same number.
        model: `move`: towards whose latents for the same question.
        share: `move`: how far, from 0 (not at all) to 1 (all the way).
        think_on: whether the model thinks the steps after the last edited one again, by itself.
    """

    kind: str
    steps: tuple[int, ...] = ()
    seed: int = 0
    question: str | None = None
    from_step: int | None = None
    model: str | None = None
    share: float = 1.0
    think_on: bool = False


Edited = Callable[[torch.Tensor, Edit, torch.Tensor | None], torch.Tensor]


def delete(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Without these steps; those after them move up."""
    left = [place for place in range(len(chain)) if place not in _places(chain, edit.steps)]
    return chain[left]


def zeroed(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """With zeros instead of these steps' latents."""
    changed = chain.clone()
    changed[_places(chain, edit.steps)] = 0
    return changed


def random(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """With Gaussian noise of each latent's own norm, a function of (seed, step)."""
    changed, places = chain.clone(), _places(chain, edit.steps)
    keys = counter_rng.derive(edit.seed, Stream.EDIT, torch.tensor(places, device=chain.device))
    changed[places] = counter_rng.of_same_norm(keys, chain[places])
    return changed


def swap(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """With two steps exchanged. Raises ValueError unless there are two, different ones."""
    places = _places(chain, edit.steps)
    if len(places) != 2 or places[0] == places[1]:
        raise ValueError("swap needs two different steps")
    changed = chain.clone()
    changed[places] = chain[places[::-1]]
    return changed


def keep(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Only the first so many steps. Raises ValueError unless it is told how many, from 0."""
    if len(edit.steps) != 1 or not 0 <= edit.steps[0] <= len(chain):
        raise ValueError(f"keep needs how many of the {len(chain)} steps are kept")
    return chain[: edit.steps[0]]


def splice(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """With steps of another question's chain in these places; without places, all of that chain."""
    if other is None:
        raise ValueError("splice needs another question, whose steps are put in")
    if not edit.steps:
        return other.clone()
    changed = chain.clone()
    for place in _places(chain, edit.steps):
        source = place if edit.from_step is None else edit.from_step - 1
        if not 0 <= source < len(other):
            raise ValueError(f"the other question has no step {source + 1}: its chain has {len(other)}")
        changed[place] = other[source]
    return changed


def move(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """With steps moved towards those of another model's chain; what only one of the two has stays.

    Raises ValueError where there is no other chain, or its latents have another shape.
    """
    if other is None:
        raise ValueError("move needs another model, towards whose latents it goes")
    if other.shape[1:] != chain.shape[1:]:
        sizes = " and ".join(f"{each.shape[1]} of width {each.shape[2]}" for each in (chain, other))
        raise ValueError(f"the latents of a step are {sizes}: there is no way from one model to the other")
    changed = chain.clone()
    for place in _places(chain, edit.steps or range(1, len(chain) + 1)) if len(chain) else ():
        if place < len(other):
            changed[place] += edit.share * (other[place].to(chain) - chain[place])
    return changed


EDITS: dict[str, Edited] = {
    "delete": delete,
    "zero": zeroed,
    "noise": random,
    "swap": swap,
    "keep": keep,
    "splice": splice,
    "move": move,
}


def apply(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None = None) -> torch.Tensor:
    """The chain after one edit.

    Args:
        chain: `[steps, latents_per_step, hidden]`.
        edit: what to do.
        other: for a splice the chain of `edit.question`, for a move that of `edit.model`.

    Raises:
        ValueError: there is no such edit or no such step.
    """
    if edit.kind not in EDITS:
        raise ValueError(f"there is no edit {edit.kind!r}; there are {', '.join(EDITS)}")
    return EDITS[edit.kind](chain, edit, other)


def in_words(edit: Edit) -> str:
    """What an edit does, for the page."""
    which = f"step{'s' if len(edit.steps) > 1 else ''} {_listed(edit.steps)}"
    if edit.kind == "keep":
        (count,) = edit.steps or (0,)
        words = f"only the first {_count(count)} kept" if count else "no step kept"
    elif edit.kind == "move":
        words = f"{which if edit.steps else 'all steps'} moved {edit.share:.0%} towards {edit.model}"
    elif edit.kind == "splice" and not edit.steps:
        words = "all steps from the other question"
    elif edit.kind == "splice":
        words = f"{which} from the other question"
        words += "" if edit.from_step is None else f" (its step {edit.from_step})"
    elif edit.kind == "swap":
        words = f"{which} exchanged"
    else:
        words = f"{which} {_DONE.get(edit.kind, edit.kind)}"
    return words + (", the steps after it thought again" if edit.think_on else "")


_DONE = {"delete": "deleted", "zero": "set to zero", "noise": "replaced by noise"}


def _listed(steps: Sequence[int]) -> str:
    words = list(map(str, steps))
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part) if words else ""


def _count(number: int) -> str:
    return "step" if number == 1 else f"{number} steps"


def _places(chain: torch.Tensor, steps: Sequence[int]) -> list[int]:
    """Places from 0. Raises ValueError on a step that is not there, or on none."""
    if not steps:
        raise ValueError("the edit does not say which steps it is for")
    for step in steps:
        if not 1 <= step <= len(chain):
            has = {0: "no steps", 1: "one step"}.get(len(chain), f"{len(chain)} steps")
            raise ValueError(f"there is no step {step}: the chain has {has}")
    return [step - 1 for step in steps]
