"""What can be done to a chain of latent steps before the answer is written: each edit a small function.

A chain is `[steps, latents_per_step, hidden]`; steps are counted from 1, as on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from latentplan.modeling import counter_rng as noise
from latentplan.modeling.counter_rng import Stream


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
    keys = noise.derive(edit.seed, Stream.EDIT, torch.tensor(places, device=chain.device))
    changed[places] = noise.of_same_norm(keys, chain[places])
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
