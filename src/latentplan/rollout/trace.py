"""A trace: one question's most probable trajectory, with everything that can be seen on the way.

Each latent step and each token is there as soon as it is computed, with the distribution that it was taken
from. It is the trajectory that the engine gives at temperature 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from latentplan.modeling.counter_rng import Draws
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.chunked_logits import ends
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import Given, ThinkingStep, think_blocks
from latentplan.modeling.token_loop import write_tokens
from latentplan.rollout.solve import question_batch


@dataclass(frozen=True)
class LatentStep:
    """The latents of one step.

    Attributes:
        latents: `[latents_per_step, hidden]`.
        hidden: `[latents_per_step, hidden]`, the backbone's last hidden state before each.
        sigma: `[latents_per_step]`, root mean square of σ over dimensions; None for deterministic latents.
        stop: the stop head's probability of stopping here; None without a stop head.
        stopped: whether it did: these latents then are not part of the chain.
        given: whether the latents were given from outside.
    """

    latents: torch.Tensor
    hidden: torch.Tensor
    sigma: torch.Tensor | None
    stop: float | None
    stopped: bool = False
    given: bool = False


@dataclass(frozen=True)
class Token:
    """One token of the text after the latents.

    Attributes:
        id: in the vocabulary.
        probability: at temperature 1.
        last: whether it ends the text; it is then no part of it.
    """

    id: int
    probability: float
    last: bool


@torch.no_grad()
def trace(
    model: LoadedModel, question: str, *, max_new_tokens: int, given: torch.Tensor | None = None
) -> Iterator[LatentStep | Token]:
    """Yields the steps, then the tokens, of the most probable trajectory.

    Args:
        model: reasoner, tokenizer, processor.
        question: in words.
        max_new_tokens: tokens at most.
        given: `[steps, latents_per_step, hidden]`, the first steps' latents, whatever they are. The model
            generates those after them by itself; at these steps nothing stops it.
    """
    reasoner = model.reasoner
    state = reasoner.start(*question_batch(model, [question]))
    if reasoner.config.has_latents:
        yield from _steps(reasoner, state, given)
        state.append(*reasoner.end_latent(1))
    for step in write_tokens(reasoner, state, max_new_tokens, rule=reasoner.input_rule):
        assert step.log_prob is not None
        last = bool(ends(step.token, reasoner.config.eos_token_id))
        yield Token(int(step.token), float(step.log_prob.exp()), last)
        if last:
            return


def _steps(
    reasoner: LatentReasoner, state: DecodingState, given: torch.Tensor | None
) -> Iterator[LatentStep]:
    """Yields each step as soon as its last latent is there."""
    size, num_given = reasoner.config.latents_per_step, 0 if given is None else len(given)
    device = state.mask.device
    length, known = LatentLength(at_least=torch.tensor([num_given], device=device)), None
    if given is not None:
        filled = torch.zeros(1, reasoner.config.num_slots, given.shape[-1], device=device)
        filled[0, : num_given * size] = given.flatten(0, 1)
        slot = torch.arange(reasoner.config.num_slots, device=device)
        known = Given.intervened(filled, (slot < num_given * size).unsqueeze(0))
    latents: list[LatentInBlock] = []
    stopped = False
    for thought in think_blocks(reasoner, state, length, Draws(), 0.0, known):
        for offset in range(thought.block.latents.shape[1]):
            if stopped:
                continue
            latents.append(LatentInBlock(thought, offset))
            step = (thought.start + offset) // size
            stopped = latents[0].stopped(size)
            if stopped or len(latents) == size:
                yield _step(latents, size, given=step < num_given)
                latents = []


@dataclass(frozen=True)
class LatentInBlock:
    """One latent of a block of one row."""

    thought: ThinkingStep
    offset: int

    def decided(self, size: int) -> tuple[float, bool] | None:
        """Returns the stop head's probability of stopping at a step's first latent, and whether it did."""
        decision = self.thought.decision
        if decision is None:
            return None
        index = self.offset // size
        return float(decision.logits[0, index].softmax(dim=-1)[1]), bool(decision.stop[0, index])

    def stopped(self, size: int) -> bool:
        """Returns whether the chain ends at the step whose first latent this is."""
        decided = self.decided(size)
        return decided is not None and decided[1]


def _step(latents: list[LatentInBlock], size: int, given: bool) -> LatentStep:
    blocks = [(each.thought.block, each.offset) for each in latents]
    sigmas = [
        block.distribution.log_variance[0, offset].exp().mean().sqrt()
        for block, offset in blocks
        if block.distribution.log_variance is not None
    ]
    decided = latents[0].decided(size)
    return LatentStep(
        latents=torch.stack([block.latents[0, offset] for block, offset in blocks]),
        hidden=torch.stack([block.hidden[0, offset] for block, offset in blocks]),
        sigma=torch.stack(sigmas) if sigmas else None,
        stop=None if decided is None else decided[0],
        stopped=decided is not None and decided[1],
        given=given,
    )
