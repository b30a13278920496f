"""Latents set to zero, noised, replaced, moved or reordered, and the answer after it.

The changes themselves (`zeroed`, `noised`, `replaced`, `moved`, `reordered`) are functions of a batch of
latents `[rows, slots, hidden]`. `rollout.interventions` makes one of them in the greedy chains of a whole set
of problems. An `Edit` makes one in some steps of one chain `[steps, latents_per_step, hidden]`, whose steps
are counted from 1, as on the inspector's page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from latentplan.modeling import counter_rng
from latentplan.modeling.counter_rng import Stream
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import answer_from
from latentplan.rollout.solve import question_batch
from latentplan.rollout.trace import LatentStep, trace


def zeroed(latents: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """Sets latents to zero.

    Args:
        latents: `[rows, slots, hidden]`.
        where: bool, `[rows, slots]` or `[rows, 1]`; everywhere if None.
    """
    return replaced(latents, torch.zeros_like(latents), where)


def noised(latents: torch.Tensor, keys: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """Replaces latents by Gaussian noise of their own norms.

    Args:
        latents: `[rows, slots, hidden]`.
        keys: `[rows]`, of which the noise is a function.
        where: bool, `[rows, slots]` or `[rows, 1]`; everywhere if None.
    """
    return replaced(latents, counter_rng.of_same_norm(keys, latents), where)


def replaced(latents: torch.Tensor, others: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """Puts other latents instead of some.

    Args:
        latents: `[rows, slots, hidden]`.
        others: the latents to take, of a shape that broadcasts to it.
        where: bool, `[rows, slots]` or `[rows, 1]`; everywhere if None.
    """
    others = others.to(latents)
    if where is None:
        return others.expand_as(latents).clone()
    return torch.where(where.to(latents.device).unsqueeze(-1), others, latents)


def moved(latents: torch.Tensor, others: torch.Tensor, where: torch.Tensor, share: float) -> torch.Tensor:
    """Moves latents along the straight line towards others.

    Args:
        latents, others: `[rows, slots, hidden]`.
        where: bool, `[rows, slots]` or `[rows, 1]`.
        share: of the way, from 0 to 1.
    """
    return replaced(latents, latents + share * (others.to(latents) - latents), where)


def reordered(latents: torch.Tensor, order: torch.Tensor, latents_per_step: int) -> torch.Tensor:
    """Puts latent steps into another order; the latents of one step keep theirs.

    Args:
        latents: `[rows, slots, hidden]`.
        order: `[rows, steps]`, the index of the step that comes to each position.
        latents_per_step: slots of a step.
    """
    by_step = latents.unflatten(1, (-1, latents_per_step))
    rows = torch.arange(len(latents), device=latents.device).unsqueeze(1)
    return by_step[rows, order.to(latents.device)].flatten(1, 2)


def answers_after(
    model: LoadedModel,
    questions: Sequence[str],
    latents: torch.Tensor,
    slot_mask: torch.Tensor,
    max_new_tokens: int,
) -> list[str]:
    """Writes the greedy completion of each question after given latents.

    Args:
        model: reasoner, tokenizer, processor.
        questions: in words.
        latents: `[questions, slots, hidden]`.
        slot_mask: `[questions, slots]`, 1 where a slot is in use.
        max_new_tokens: text tokens at most.
    """
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
    """One change in some steps of one chain.

    Attributes:
        kind: a name in `EDITS`.
        steps: which steps; for `keep` how many. Empty where a splice or a move is of the whole chain.
        seed: of the noise.
        question: `splice`: whose steps are put in.
        from_step: `splice`: which of them; None takes the step of the same number.
        model: `move`: towards whose latents for the same question.
        share: `move`: how far, from 0 (not at all) to 1 (all the way).
        regenerate: whether the model computes the steps after the last edited one again.
    """

    kind: str
    steps: tuple[int, ...] = ()
    seed: int = 0
    question: str | None = None
    from_step: int | None = None
    model: str | None = None
    share: float = 1.0
    regenerate: bool = False


EditFunction = Callable[[torch.Tensor, Edit, torch.Tensor | None], torch.Tensor]


def _delete(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Leaves these steps out; those after them move up."""
    return chain[~_where(chain, _indices(chain, edit.steps)).squeeze(1)]


def _zero(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Sets these steps' latents to zero."""
    return zeroed(chain, _where(chain, _indices(chain, edit.steps)))


def _noise(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Replaces each latent of these steps by Gaussian noise of its own norm, a function of (seed, step)."""
    where = _where(chain, _indices(chain, edit.steps))
    keys = counter_rng.derive(edit.seed, Stream.EDIT, torch.arange(len(chain), device=chain.device))
    return noised(chain, keys, where)


def _swap(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Exchanges two steps. Raises ValueError unless there are two, different ones."""
    indices = _indices(chain, edit.steps)
    if len(indices) != 2 or indices[0] == indices[1]:
        raise ValueError("swap needs two different steps")
    order = torch.arange(len(chain))
    order[indices] = order[indices[::-1]]
    size = chain.shape[1]
    return reordered(chain.flatten(0, 1).unsqueeze(0), order.unsqueeze(0), size)[0].unflatten(0, (-1, size))


def _keep(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Keeps only the first so many steps. Raises ValueError unless it is told how many, from 0."""
    if len(edit.steps) != 1 or not 0 <= edit.steps[0] <= len(chain):
        raise ValueError(f"keep needs how many of the {len(chain)} steps are kept")
    return chain[: edit.steps[0]]


def _splice(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Puts steps of another question's chain in; without steps, takes all of that chain."""
    if other is None:
        raise ValueError("splice needs another question, whose steps are put in")
    if not edit.steps:
        return other.clone()
    indices = _indices(chain, edit.steps)
    sources = torch.arange(len(chain)).clamp(max=len(other) - 1)
    for index in indices:
        source = index if edit.from_step is None else edit.from_step - 1
        if not 0 <= source < len(other):
            raise ValueError(f"the other question has no step {source + 1}: its chain has {len(other)}")
        sources[index] = source
    return replaced(chain, other[sources], _where(chain, indices))


def _move(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None) -> torch.Tensor:
    """Moves steps towards those of another model's chain; what only one of the two has stays.

    Raises ValueError where there is no other chain, or its latents have another shape.
    """
    if other is None:
        raise ValueError("move needs another model, towards whose latents it goes")
    if other.shape[1:] != chain.shape[1:]:
        sizes = " and ".join(f"{each.shape[1]} of width {each.shape[2]}" for each in (chain, other))
        raise ValueError(f"the latents of a step are {sizes}: there is no way from one model to the other")
    every = range(1, len(chain) + 1)
    chosen = _indices(chain, edit.steps or every) if len(chain) else []
    both = min(len(chain), len(other))
    others = torch.cat([other[:both].to(chain), chain[both:]])
    return moved(chain, others, _where(chain, [index for index in chosen if index < both]), edit.share)


EDITS: dict[str, EditFunction] = {
    "delete": _delete,
    "zero": _zero,
    "noise": _noise,
    "swap": _swap,
    "keep": _keep,
    "splice": _splice,
    "move": _move,
}
_REGENERATES = ("zero", "noise", "swap", "splice", "move")


def apply(chain: torch.Tensor, edit: Edit, other: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the chain after one edit.

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


def edited_chain(
    model: LoadedModel, question: str, chain: torch.Tensor, edit: Edit, other: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns the chain after one edit, with the steps after it computed again where the edit says so.

    Args:
        model: reasoner, tokenizer, processor.
        question: whose chain it is, in words.
        chain: `[steps, latents_per_step, hidden]`.
        edit: what to do.
        other: as for `apply`.

    Raises:
        ValueError: as `apply`; or nothing would be different after what is computed again.
    """
    changed = apply(chain, edit, other)
    if not edit.regenerate:
        return changed
    if edit.kind not in _REGENERATES:
        raise ValueError(f"after {edit.kind} the steps would only be regenerated as they were")
    given = changed[: max(edit.steps, default=len(changed))]
    traced = trace(model, question, max_new_tokens=0, given=given)
    steps = [seen.latents for seen in traced if isinstance(seen, LatentStep) and not seen.stopped]
    return torch.stack(steps).to(chain.device) if steps else changed[:0]


def pad_chains(chains: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads chains `[steps, latents_per_step, hidden]` to latents `[chains, slots, hidden]` and their mask."""
    flat = [chain.flatten(0, 1) for chain in chains]
    latents = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True)
    lengths = torch.tensor([len(each) for each in flat], device=latents.device)
    return latents, (torch.arange(latents.shape[1], device=latents.device) < lengths.unsqueeze(1)).long()


def in_words(edit: Edit) -> str:
    """Says what an edit does, for the page."""
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
    return words + (", the steps after it regenerated" if edit.regenerate else "")


_DONE = {"delete": "deleted", "zero": "set to zero", "noise": "replaced by noise"}


def _listed(steps: Sequence[int]) -> str:
    words = list(map(str, steps))
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part) if words else ""


def _count(number: int) -> str:
    return "step" if number == 1 else f"{number} steps"


def _indices(chain: torch.Tensor, steps: Sequence[int]) -> list[int]:
    """Returns indices from 0. Raises ValueError on a step that is not there, or on none."""
    if not steps:
        raise ValueError("the edit does not say which steps it is for")
    for step in steps:
        if not 1 <= step <= len(chain):
            has = {0: "no steps", 1: "one step"}.get(len(chain), f"{len(chain)} steps")
            raise ValueError(f"there is no step {step}: the chain has {has}")
    return [step - 1 for step in steps]


def _where(chain: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
    """Returns a mask `[steps, 1]` of a chain's steps, True at these."""
    where = torch.zeros(len(chain), 1, dtype=torch.bool, device=chain.device)
    where[list(indices)] = True
    return where
