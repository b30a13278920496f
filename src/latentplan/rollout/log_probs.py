"""Log-probabilities of recorded trajectories: in parallel, or replayed with gradients through latents.

`score` treats the sampled latents as fixed inputs, so every position is computed in one pass. `replay`
computes the latents again, one after another, from the recorded noise: they are then functions of the
parameters, and the log-probabilities of stops and answers carry the pathwise gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from latentplan.modeling.context import Context
from latentplan.modeling.gaussians import gaussian_log_prob
from latentplan.modeling.latents import LatentChain, read_text, unroll_from
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.vocabulary import at_places, from_places, token_log_probs_and_entropy
from latentplan.rollout.sampling import Sampling, log_softmax
from latentplan.rollout.trajectories import Trajectories


@dataclass
class Scores:
    """Log-probabilities of trajectories under a policy.

    Attributes:
        chain: the latents with the distributions that the policy gives them, `[chains, slots, hidden]`.
        latents: `[chains, slots]`, summed over dimensions.
        stops: `[chains, steps]`, of the decisions taken.
        answers: `[chains · answers, tokens]`.
        stop_logits: `[chains, steps, 2]`, or None without a stop head.
        entropy: `[chains · answers, tokens]`, of the answer tokens' distribution, in nats.
    """

    chain: LatentChain
    latents: torch.Tensor
    stops: torch.Tensor
    answers: torch.Tensor
    stop_logits: torch.Tensor | None
    entropy: torch.Tensor


def latent_log_prob(chain: LatentChain, latent_temperature: float) -> torch.Tensor:
    """Σ_d log N(z; μ, (temperature·σ)²) of each slot in use, `[chains, slots]`; 0 for points."""
    if chain.log_variance is None or latent_temperature == 0:
        return chain.latents.new_zeros(chain.latents.shape[:-1])
    log_variance = chain.log_variance + 2 * math.log(latent_temperature)
    return gaussian_log_prob(chain.latents, chain.mean, log_variance, chain.mask)


def score(model: LatentReasoner, trajectories: Trajectories, sampling: Sampling) -> Scores:
    """All log-probabilities, the latents being fixed inputs: a pass over question, slots and answer each."""
    context, last = _read_question(model, trajectories)
    chain = LatentChain(trajectories.latents, trajectories.latents, None, trajectories.slot_mask)
    if model.config.num_slots:
        context.push(trajectories.latents, trajectories.slot_mask)
        before = torch.cat([last.unsqueeze(1), context.read()], dim=1)[:, :-1]
        distribution = model.latent_head(before)  # type: ignore[misc]
        chain = LatentChain(
            trajectories.latents, distribution.mean, distribution.log_variance, trajectories.slot_mask
        )
    return _scores(model, context, last, chain, trajectories, sampling)


def replay(
    model: LatentReasoner, trajectories: Trajectories, noise: torch.Tensor, sampling: Sampling
) -> Scores:
    """All log-probabilities, the latents being computed again from `noise` `[chains, slots, hidden]`."""
    context, last = _read_question(model, trajectories)
    chain = unroll_from(model, context, last, trajectories.slot_mask, noise, sampling.latent_temperature)
    return _scores(model, context, last, chain, trajectories, sampling)


def _read_question(model: LatentReasoner, trajectories: Trajectories) -> tuple[Context, torch.Tensor]:
    """The context after the question, shared by its chains, and its last hidden state `[chains, hidden]`."""
    context = model.start(trajectories.question_ids, trajectories.question_mask)
    last = context.read()[:, -1].repeat_interleave(trajectories.draws, dim=0)
    return context.repeat(trajectories.draws), last


def _scores(
    model: LatentReasoner,
    context: Context,
    last: torch.Tensor,
    chain: LatentChain,
    trajectories: Trajectories,
    sampling: Sampling,
) -> Scores:
    hidden = _before_answers(model, context, last, trajectories)
    answers, entropy = _score_answers(model, hidden, trajectories, sampling)
    stops, stop_logits = _score_stops(model, chain, trajectories, sampling)
    return Scores(
        chain=chain,
        latents=latent_log_prob(chain, sampling.latent_temperature),
        stops=stops,
        answers=answers,
        stop_logits=stop_logits,
        entropy=entropy,
    )


def _before_answers(
    model: LatentReasoner, context: Context, last: torch.Tensor, trajectories: Trajectories
) -> torch.Tensor:
    """Hidden states before each answer token, `[chains · answers, tokens, hidden]`."""
    answers, ids, mask = trajectories.answers, trajectories.answer_ids, trajectories.answer_mask
    if model.config.num_slots:
        context.push(*model.end_latent(last.shape[0]))
        if answers == 1:
            return read_text(context, model.embed(ids), mask)
        last = context.read()[:, -1]
    hidden = last.repeat_interleave(answers, dim=0).unsqueeze(1)
    if ids.shape[1] == 1:
        return hidden
    context = context.repeat(answers)
    context.push(model.embed(ids[:, :-1]), mask[:, :-1])
    return torch.cat([hidden, context.read()], dim=1)


def _score_answers(
    model: LatentReasoner, hidden: torch.Tensor, trajectories: Trajectories, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    mask = trajectories.answer_mask
    where = trajectories.answer_places
    ids = at_places(trajectories.answer_ids, where)
    log_probs, entropy = token_log_probs_and_entropy(
        model, at_places(hidden, where), ids, sampling.temperature or 1.0
    )
    return from_places(log_probs, where, mask), from_places(entropy, where, mask)


def _score_stops(
    model: LatentReasoner, chain: LatentChain, trajectories: Trajectories, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if model.stop_head is None or not model.config.num_slots:
        return trajectories.stop_log_probs, None
    logits = model.stop_head(chain.latents[:, :: model.config.latents_per_step])
    log_probs = log_softmax(logits, sampling.temperature)
    chosen = log_probs.gather(2, trajectories.stops.unsqueeze(2)).squeeze(2)
    return chosen * trajectories.stop_mask, logits
