"""Log-probabilities of recorded trajectories: in parallel, or replayed with gradients through latents.

`score` treats the sampled latents as fixed inputs, so every position is computed in one pass. `replay`
computes the latents again, one after another, from the recorded noise: they are then functions of the
parameters, and the log-probabilities of stops and answers carry the pathwise gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentplan.modeling.counter_rng import Draws
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.chunked_logits import (
    at_indices,
    from_indices,
    token_log_probs_and_entropy,
)
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling, log_softmax
from latentplan.modeling.thinking import LatentChain, read_text, think
from latentplan.modeling.token_loop import embed_inputs
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


def score(model: LatentReasoner, trajectories: Trajectories, sampling: Sampling) -> Scores:
    """Scores trajectories with the latents as fixed inputs, in one pass where that is possible."""
    state = _read_question(model, trajectories)
    chain = model.thinking.teacher_force(model, state, trajectories.latents, trajectories.slot_mask)
    return _scores(model, state, chain, trajectories, sampling)


def replay(
    model: LatentReasoner, trajectories: Trajectories, noise: torch.Tensor, sampling: Sampling
) -> Scores:
    """Scores trajectories with the latents computed again from `noise` `[chains, slots, hidden]`."""
    state = _read_question(model, trajectories)
    length, draws = LatentLength(trajectories.slot_mask), Draws(latents=noise)
    chain = think(model, state, length, draws, sampling.latent_temperature)
    return _scores(model, state, chain, trajectories, sampling)


def _read_question(model: LatentReasoner, trajectories: Trajectories) -> DecodingState:
    """Reads the questions, whose chains share them."""
    state = model.start(trajectories.question_ids, trajectories.question_mask)
    state.read()
    return state.repeat(trajectories.draws)


def _scores(
    model: LatentReasoner,
    state: DecodingState,
    chain: LatentChain,
    trajectories: Trajectories,
    sampling: Sampling,
) -> Scores:
    hidden = _before_answers(model, state, trajectories)
    answers, entropy = _score_answers(model, hidden, trajectories, sampling)
    stops, stop_logits = _score_stops(model, chain, trajectories, sampling)
    return Scores(
        chain=chain,
        latents=chain.log_prob(sampling.latent_temperature),
        stops=stops,
        answers=answers,
        stop_logits=stop_logits,
        entropy=entropy,
    )


def _before_answers(model: LatentReasoner, state: DecodingState, trajectories: Trajectories) -> torch.Tensor:
    """Reads the answers; the hidden state before each token, `[chains · answers, tokens, hidden]`."""
    if model.config.has_latents:
        state.append(*model.end_latent(state.rows))
    if trajectories.answers > 1:
        state.hidden_before()
        state = state.repeat(trajectories.answers)
    inputs = model.embed(trajectories.answer_ids)
    if trajectories.input_ids is not None:
        inputs = embed_inputs(model, trajectories.input_ids, trajectories.input_weights)
    return read_text(state, inputs, trajectories.answer_mask)


def _score_answers(
    model: LatentReasoner, hidden: torch.Tensor, trajectories: Trajectories, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    mask = trajectories.answer_mask
    where = trajectories.answer_places
    ids = at_indices(trajectories.answer_ids, where)
    log_probs, entropy = token_log_probs_and_entropy(
        model, at_indices(hidden, where), ids, sampling.temperature or 1.0
    )
    return from_indices(log_probs, where, mask), from_indices(entropy, where, mask)


def _score_stops(
    model: LatentReasoner, chain: LatentChain, trajectories: Trajectories, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if model.stop_head is None or not model.config.has_latents:
        return trajectories.stop_log_probs, None
    logits = model.stop_head(chain.latents[:, :: model.config.latents_per_step])
    log_probs = log_softmax(logits, sampling.temperature)
    chosen = log_probs.gather(2, trajectories.stops.unsqueeze(2)).squeeze(2)
    return chosen * trajectories.stop_mask, logits
