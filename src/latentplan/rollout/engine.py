"""The rollout engine: batched latents of variable length, then answers, on one KV cache.

A question is read once and its cache shared by its group. Rows that have stopped or finished leave masked
columns, which no other token sees, and leave the batch when they are half of it or more. Each random
number is a function of (seed, problem, sample, position), so neither the batch size nor the order of
questions changes a trajectory. A request that is larger than memory is split instead of failing, which
changes no trajectory either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import psutil
import torch
from transformers import PreTrainedConfig

from latentplan.modeling import counter_rng
from latentplan.modeling.counter_rng import Stream
from latentplan.modeling.efficiency.chunked_logits import ends
from latentplan.modeling.efficiency.cuda_graphs import with_cuda_graphs
from latentplan.modeling.efficiency.kv_cache import reserved
from latentplan.modeling.efficiency.prefill import prefill
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.thinking import LatentChain, think
from latentplan.modeling.token_loop import Written, write
from latentplan.rollout.trajectories import Trajectories

_SHARE = 0.8
"""Of the free memory; the rest is for what is not counted."""


def cache_bytes(backbone: PreTrainedConfig, positions: int, itemsize: int) -> int:
    """Computes the bytes of keys and values of one sequence of `positions` tokens."""
    shape = backbone.get_text_config(decoder=True)
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    return 2 * positions * shape.num_hidden_layers * heads * width * itemsize


def vocabulary_bytes(vocabulary: int, itemsize: int) -> int:
    """Returns one token's logits and log-probabilities, and the noise that it is drawn with."""
    return vocabulary * (itemsize + 4 * 4 + 2 * 8)


def free_bytes(device: torch.device) -> int:
    """Returns the memory that a rollout may take on a device."""
    if device.type != "cuda":
        return int(_SHARE * psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(_SHARE * (free + reserved))


def pieces(questions: int, draws: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Yields ranges of questions and of each one's draws, with at most `at_once` chains in each (one at
    least).

    They come in the order of the chains: whole groups while these fit, else parts of one group after another.
    """
    at_once = max(1, at_once)
    groups = at_once // draws
    if groups:
        for start in range(0, questions, groups):
            yield slice(start, min(start + groups, questions)), slice(0, draws)
        return
    for question in range(questions):
        for start in range(0, draws, at_once):
            yield slice(question, question + 1), slice(start, min(start + at_once, draws))


def trajectory_keys(seed: int, problem_ids: torch.Tensor, samples: int) -> torch.Tensor:
    """Derives noise keys `[problems · samples]` of each problem's samples, from (seed, problem, sample)."""
    sample = torch.arange(samples, device=problem_ids.device)
    return counter_rng.derive(seed, Stream.TRAJECTORY, problem_ids.unsqueeze(1), sample).flatten()


@torch.no_grad()
def generate(
    model: LatentReasoner,
    question_ids: torch.Tensor,
    question_mask: torch.Tensor,
    problem_ids: torch.Tensor,
    *,
    seed: int,
    sampling: Sampling,
    draws: int = 1,
    stops: int = 1,
    answers: int = 1,
    memory: int | None = None,
) -> Trajectories:
    """Rolls out `draws` chains of latents for each question and `answers` answers for each chain.

    With `stops` above 1 each chain is there so often, with the same noise of its latents and with stop
    decisions of its own: `draws · stops` chains of each question.

    Args:
        model: the policy.
        question_ids, question_mask: `[questions, question]`, left-padded; for latent models with
            `<|start-latent|>` at the end.
        problem_ids: `[questions]` int64, what the noise of a question follows from, with `seed`.
        seed: of the noise.
        sampling: temperatures and length.
        draws: chains of latents for each question.
        stops: times that the stop decisions of each chain are drawn.
        answers: answers for each chain.
        memory: bytes that keys, values and logits may take; what is free where it is None. A larger request
            is rolled out piece by piece.
    """
    keys = trajectory_keys(seed, problem_ids, draws).unflatten(0, (-1, draws))
    budget = free_bytes(question_ids.device) if memory is None else memory
    at_once = budget // (stops * answers * _bytes(model, question_ids.shape[1], sampling))
    while True:
        try:
            parts = [
                _roll_out(
                    model,
                    question_ids[some],
                    question_mask[some],
                    keys[some, those],
                    stops,
                    answers,
                    sampling,
                )
                for some, those in pieces(len(question_ids), draws, at_once)
            ]
        except torch.OutOfMemoryError:
            if at_once <= 1:
                raise
            at_once = min(at_once, keys.numel()) // 2
            continue
        padding = cast(int, model.config.pad_token_id)
        return Trajectories.joined(parts, question_ids, question_mask, padding)


def _bytes(model: LatentReasoner, question: int, sampling: Sampling) -> int:
    """Computes the memory of one trajectory, reserved columns included."""
    itemsize = model.backbone.dtype.itemsize
    positions = reserved(question + model.config.num_slots + 1 + sampling.max_new_tokens)
    vocabulary = cast(int, cast(torch.Tensor, model.get_output_embeddings().weight).shape[0])
    backbone = model.backbone.config
    return cache_bytes(backbone, positions, itemsize) + vocabulary_bytes(vocabulary, itemsize)


def _roll_out(
    model: LatentReasoner,
    question_ids: torch.Tensor,
    question_mask: torch.Tensor,
    keys: torch.Tensor,
    stops: int,
    answers: int,
    sampling: Sampling,
) -> Trajectories:
    """Generates for the keys `[questions, draws]`, in one batch."""
    draws, chain_keys = keys.shape[1] * stops, keys.flatten().repeat_interleave(stops)
    again = torch.arange(stops, device=keys.device).repeat(keys.numel())
    state = model.start(question_ids, question_mask)
    prefill(state)
    state = with_cuda_graphs(state.repeat(draws), model.config.num_slots + 1 + sampling.max_new_tokens)
    chain_draws = counter_rng.thinking_draws(
        model.config, chain_keys, again, latents=model.is_gaussian and sampling.latent_temperature > 0
    )
    length = LatentLength(temperature=sampling.temperature, keys=chain_draws.stops)
    chain = think(model, state, length, chain_draws, sampling.latent_temperature)
    if model.config.has_latents:
        state.append(*model.end_latent(state.rows))
        state.read()
    answer = torch.arange(answers, device=keys.device).repeat(len(chain_keys))
    token_draws = counter_rng.token_draws(
        chain_keys.repeat_interleave(answers),
        sampling.max_new_tokens,
        again.repeat_interleave(answers),
        answer,
    )
    written = write(
        model,
        state.repeat(answers),
        sampling.max_new_tokens,
        temperature=sampling.temperature,
        draws=token_draws,
        rule=model.input_rule,
    )
    return _trajectories(model, question_ids, question_mask, chain_keys, chain, written, sampling)


def _trajectories(
    model: LatentReasoner,
    question_ids: torch.Tensor,
    question_mask: torch.Tensor,
    chain_keys: torch.Tensor,
    chain: LatentChain,
    written: Written,
    sampling: Sampling,
) -> Trajectories:
    steps = chain.mask.shape[1] // model.config.latents_per_step
    undecided = chain.mask.new_zeros(chain.mask.shape[0], steps)
    decision = chain.decision
    tokens = written.ids.shape[1]
    if chain_keys.device.type != "cpu":  # more columns than needed may have been read
        tokens = max(1, int(written.mask.any(dim=0).sum()))
    ids, mask = written.ids[:, :tokens], written.mask[:, :tokens]
    assert written.log_probs is not None
    return Trajectories(
        question_ids=question_ids,
        question_mask=question_mask,
        chain_keys=chain_keys,
        latents=chain.latents,
        slot_mask=chain.mask,
        stop_mask=undecided if decision is None else decision.mask,
        stops=undecided if decision is None else decision.stop,
        latent_log_probs=chain.log_prob(sampling.latent_temperature),
        stop_log_probs=undecided.float() if decision is None else decision.log_prob,
        answer_ids=ids,
        answer_mask=mask,
        answer_log_probs=written.log_probs[:, :tokens],
        finished=(ends(ids, model.config.eos_token_id) & mask.bool()).any(dim=1),
        input_ids=None if written.input_ids is None else written.input_ids[:, :tokens],
        input_weights=None if written.input_weights is None else written.input_weights[:, :tokens],
    )


def chain_noise(model: LatentReasoner, chain_keys: torch.Tensor) -> torch.Tensor:
    """Returns the standard normal noise `[chains, slots, hidden]` that a rollout with these keys used."""
    return counter_rng.slots(chain_keys, model.config.num_slots, model.config.hidden_size)


@torch.no_grad()
def answer_from(
    model: LatentReasoner,
    question_ids: torch.Tensor,
    question_mask: torch.Tensor,
    latents: torch.Tensor,
    slot_mask: torch.Tensor,
    chain_keys: torch.Tensor,
    sampling: Sampling,
) -> torch.Tensor:
    """Answers that follow given latents, for interventions: token ids `[batch, tokens]`, padded after eos.

    Args:
        model: the policy.
        question_ids, question_mask: `[batch, question]`, left-padded.
        latents: `[batch, slots, hidden]`, whatever they are.
        slot_mask: `[batch, slots]`, 1 where a slot is in use.
        chain_keys: `[batch]`, the keys of the trajectories whose first answer is drawn.
        sampling: temperature and length of the answer.
    """
    state = model.start(question_ids, question_mask)
    state.append(latents, slot_mask)
    state.append(*model.end_latent(latents.shape[0]))
    draws = counter_rng.token_draws(chain_keys, sampling.max_new_tokens)
    return write(
        model,
        state,
        sampling.max_new_tokens,
        temperature=sampling.temperature,
        draws=draws,
        rule=model.input_rule,
        scores=False,
    ).ids
