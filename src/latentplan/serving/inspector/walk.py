"""One question, thought through step by step, with everything that can be seen on the way.

The engine (`rollout.engine`) is made for many rows at once and keeps what training needs. Here one row yields
each latent step and each token as soon as it is there, with the distribution that it was taken from. Greedy
throughout: the same trajectory as the engine's at temperature 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from latentplan.modeling.context import Context
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.vocabulary import ends
from latentplan.rollout.solve import question_batch


@dataclass(frozen=True)
class LatentStep:
    """The latents of one step.

    Attributes:
        latents: `[latents_per_step, hidden]`.
        hidden: `[latents_per_step, hidden]`, the backbone's last hidden state before each.
        sigma: `[latents_per_step]`, root mean square over the dimensions of σ; None where latents are points.
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
def walk(
    model: LoadedModel, question: str, *, max_new_tokens: int, given: torch.Tensor | None = None
) -> Iterator[LatentStep | Token]:
    """The steps, then the tokens, of the most probable trajectory.

    Args:
        model: reasoner, tokenizer, encoder.
        question: in words.
        max_new_tokens: tokens at most.
        given: `[steps, latents_per_step, hidden]`, the first steps' latents, whatever they are. The model
            goes on after them by itself; at these steps nothing stops it.
    """
    reasoner = model.reasoner
    context = reasoner.start(*question_batch(model, [question]))
    hidden = context.read()[:, -1]
    if reasoner.config.num_slots:
        yield from _steps(reasoner, context, hidden, given)
        context.push(*reasoner.end_latent(1))
        hidden = context.read()[:, -1]
    yield from _tokens(reasoner, context, hidden, max_new_tokens)


def _steps(
    reasoner: LatentReasoner, context: Context, hidden: torch.Tensor, given: torch.Tensor | None
) -> Iterator[LatentStep]:
    config = reasoner.config
    num_given = 0 if given is None else len(given)
    one = torch.ones(1, 1, dtype=torch.long, device=hidden.device)
    for step in range(config.max_latent_steps):
        before, latents, sigmas, stop = [], [], [], None
        for slot in range(config.latents_per_step):
            if step or slot:
                hidden = context.read()[:, -1]
            distribution = reasoner.latent_head(hidden)  # type: ignore[misc]
            latent = distribution.mean
            if given is not None and step < num_given:
                latent = given[step, slot].to(latent).unsqueeze(0)
            if slot == 0 and reasoner.stop_head is not None:
                stop = float(reasoner.stop_head(latent).softmax(dim=-1)[0, 1])
            before.append(hidden[0])
            latents.append(latent[0])
            if distribution.log_variance is not None:
                sigmas.append(distribution.log_variance[0].exp().mean().sqrt())
            if stop is not None and stop > 0.5 and step >= num_given:
                break
            context.push(latent.unsqueeze(1), one)
        stopped = stop is not None and stop > 0.5 and step >= num_given
        yield LatentStep(
            torch.stack(latents),
            torch.stack(before),
            torch.stack(sigmas) if sigmas else None,
            stop,
            stopped,
            given=step < num_given,
        )
        if stopped:
            return


def _tokens(
    reasoner: LatentReasoner, context: Context, hidden: torch.Tensor, max_new_tokens: int
) -> Iterator[Token]:
    one = torch.ones(1, 1, dtype=torch.long, device=hidden.device)
    for place in range(max_new_tokens):
        if place:
            hidden = context.read()[:, -1]
        best = reasoner.logits(hidden).float().softmax(dim=-1).max(dim=-1)
        last = bool(ends(best.indices, reasoner.config.eos_token_id))
        yield Token(int(best.indices), float(best.values), last)
        if last:
            return
        context.push(reasoner.embed(best.indices).unsqueeze(1), one)
