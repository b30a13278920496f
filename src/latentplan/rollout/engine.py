"""The rollout engine: batched latents of variable length, then answers, on one KV cache.

A question is read once and its cache shared by its group. Rows that have stopped or finished leave masked
columns, which no other token sees, and leave the batch when they are half of it or more. Each random
number is a function of (seed, problem, sample, position), so neither the batch size nor the order of
questions changes a trajectory, nor does the splitting of a request that is larger than memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from latentplan.modeling import noise
from latentplan.modeling.active_rows import ActiveRows, Columns
from latentplan.modeling.captured import captured
from latentplan.modeling.context import Context
from latentplan.modeling.growing_cache import reserved
from latentplan.modeling.latents import LatentChain
from latentplan.modeling.noise import Stream
from latentplan.modeling.prefill import read_question
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.vocabulary import ends
from latentplan.rollout.budget import cache_bytes, free_bytes, pieces, vocabulary_bytes
from latentplan.rollout.log_probs import latent_log_prob
from latentplan.rollout.sampling import Sampling, choose, draw, log_softmax
from latentplan.rollout.trajectories import Trajectories


def trajectory_keys(seed: int, problem_ids: torch.Tensor, samples: int) -> torch.Tensor:
    """Keys `[problems · samples]` of the noise of each problem's samples, from (seed, problem, sample)."""
    sample = torch.arange(samples, device=problem_ids.device)
    return noise.derive(seed, Stream.TRAJECTORY, problem_ids.unsqueeze(1), sample).flatten()


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
        problem_ids: `[questions]` int64, what the noise of a question follows from, beside `seed`.
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
    """Memory of one trajectory, reserved columns included."""
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
    """`generate` for the keys `[questions, draws]`, in one batch."""
    draws, chain_keys = keys.shape[1] * stops, keys.flatten().repeat_interleave(stops)
    again = torch.arange(stops, device=keys.device).repeat(keys.numel())
    context = model.start(question_ids, question_mask)
    hidden = read_question(context).repeat_interleave(draws, dim=0)
    context = captured(context.repeat(draws), model.config.num_slots + 1 + sampling.max_new_tokens)
    chains = _latents(model, context, hidden, chain_keys, again, sampling)
    if model.config.num_slots:
        context.push(*model.end_latent(chain_keys.shape[0]))
        hidden = context.read()[:, -1]
    token_keys = _token_keys(chain_keys, again, answers, sampling.max_new_tokens)
    answered = _answers(
        model, context.repeat(answers), hidden.repeat_interleave(answers, dim=0), token_keys, sampling
    )
    return Trajectories(
        question_ids=question_ids,
        question_mask=question_mask,
        chain_keys=chain_keys,
        latents=chains.latents,
        slot_mask=chains.slot_mask,
        stop_mask=chains.stop_mask,
        stops=chains.stops,
        latent_log_probs=chains.latent_log_probs,
        stop_log_probs=chains.stop_log_probs,
        answer_ids=answered.ids,
        answer_mask=answered.mask,
        answer_log_probs=answered.log_probs,
        finished=(ends(answered.ids, model.config.eos_token_id) & answered.mask.bool()).any(dim=1),
    )


def chain_noise(model: LatentReasoner, chain_keys: torch.Tensor) -> torch.Tensor:
    """The standard normal noise `[chains, slots, hidden]` that a rollout with these keys used."""
    return noise.slots(chain_keys, model.config.num_slots, model.config.hidden_size)


def _token_keys(
    chain_keys: torch.Tensor, again: torch.Tensor | int, answers: int, tokens: int
) -> torch.Tensor:
    """Derives the keys `[chains · answers, tokens]` of the answers' tokens.

    Args:
        chain_keys: `[chains]`.
        again: `[chains]`, which repetition of a chain's stop decisions each is.
        answers: of each chain.
        tokens: of each answer.
    """
    device = chain_keys.device
    answer, position = torch.arange(answers, device=device), torch.arange(tokens, device=device)
    if isinstance(again, torch.Tensor):
        again = again[:, None, None]
    keys = noise.derive(chain_keys[:, None, None], Stream.TOKEN, again, answer[:, None], position)
    return keys.flatten(0, 1)


@dataclass
class _Chains:
    """What `Trajectories` holds of latents and stops."""

    latents: torch.Tensor
    slot_mask: torch.Tensor
    latent_log_probs: torch.Tensor
    stop_mask: torch.Tensor
    stops: torch.Tensor
    stop_log_probs: torch.Tensor


@dataclass
class _Answers:
    """What `Trajectories` holds of answers."""

    ids: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor


def _latents(
    model: LatentReasoner,
    context: Context,
    hidden: torch.Tensor,
    keys: torch.Tensor,
    again: torch.Tensor,
    sampling: Sampling,
) -> _Chains:
    """Slot after slot; the stop head is asked at the first slot of each step."""
    size, slots = model.config.latents_per_step, model.config.num_slots
    alive, active = keys.new_ones(keys.shape[0]), ActiveRows(context)
    latents, means, log_variances, going, stop_log_probs = (Columns(active) for _ in range(5))
    epsilon = None
    step_index = torch.arange(slots // size, device=keys.device)
    stop_keys = noise.derive(keys.unsqueeze(1), Stream.STOP, again.unsqueeze(1), step_index)
    for slot in range(slots):
        if slot:
            hidden = active.part.read()[:, -1]
        distribution = model.latent_head(hidden)  # type: ignore[misc]
        if slot == 0 and distribution.log_variance is not None and sampling.latent_temperature:
            epsilon = chain_noise(model, keys)
        latent = distribution.sample(active.column(epsilon, slot), sampling.latent_temperature)
        latents.add(latent)
        if epsilon is not None:
            means.add(distribution.mean)
            log_variances.add(distribution.log_variance)
        step, offset = divmod(slot, size)
        if offset == 0 and model.stop_head is not None:
            logits = model.stop_head(latent)
            alive = alive * (1 - draw(logits, active.column(stop_keys, step), sampling.temperature))
            going.add(alive)
            stop_log_probs.add(log_softmax(logits, sampling.temperature))
            rest = active.remaining(alive, step)
            if rest is not None:
                if not len(rest):
                    break
                active.set_aside(rest)
                latent, alive = latent[rest], alive[rest]
        active.part.push(latent.unsqueeze(1), alive.unsqueeze(1))
    active.together()
    wide = hidden.new_zeros(keys.shape[0], slots, model.config.hidden_size, dtype=torch.float32)
    slot_mask, *stopped = _stops(model, keys, going, stop_log_probs)
    drawn = epsilon is not None
    chain = LatentChain(
        latents=latents.laid_out(wide),
        mean=means.laid_out(wide),
        log_variance=log_variances.laid_out(wide) if drawn else None,
        mask=slot_mask,
    )
    return _Chains(chain.latents, slot_mask, latent_log_prob(chain, sampling.latent_temperature), *stopped)


def _stops(
    model: LatentReasoner, keys: torch.Tensor, going: Columns, log_probs: Columns
) -> tuple[torch.Tensor, ...]:
    """`slot_mask`, `stop_mask`, `stops` and `stop_log_probs` from what each step left.

    Args:
        model: the policy.
        keys: `[rows]`, on the right device.
        going: `[rows]` of each step, 1 for rows that have not stopped there.
        log_probs: `[rows, 2]` of each step.
    """
    rows, size, slots = keys.shape[0], model.config.latents_per_step, model.config.num_slots
    steps = slots // size
    if model.stop_head is None or not slots:
        nothing = keys.new_zeros(rows, steps)
        return keys.new_ones(rows, slots), nothing, nothing.clone(), nothing.float()
    after = going.laid_out(keys.new_zeros(rows, steps))
    before = torch.cat([keys.new_ones(rows, 1), after[:, :-1]], dim=1)
    stops = before - after
    both = log_probs.laid_out(keys.new_zeros(rows, steps, 2, dtype=torch.float32))
    chosen = both.gather(2, stops.unsqueeze(2)).squeeze(2)
    return after.repeat_interleave(size, dim=1), before, stops, chosen * before


def _answers(
    model: LatentReasoner, context: Context, hidden: torch.Tensor, keys: torch.Tensor, sampling: Sampling
) -> _Answers:
    """Token after token until every row has written eos; `keys` `[rows, max_new_tokens]` of the tokens."""
    longest, pad = sampling.max_new_tokens, cast(int, model.config.pad_token_id)
    alive, active = keys.new_ones(keys.shape[0]), ActiveRows(context)
    ids, mask, log_probs = (Columns(active) for _ in range(3))
    for place in range(longest):
        token, chosen = choose(model.logits(hidden), active.column(keys, place), sampling.temperature)
        token = torch.where(alive.bool(), token, pad)
        ids.add(token)
        mask.add(alive)
        log_probs.add(chosen)
        if place + 1 == longest:
            break
        alive = alive * ~ends(token, model.config.eos_token_id)
        rest = active.remaining(alive, place)
        if rest is not None:
            if not len(rest):
                break
            active.keep(rest)
            token, alive = token[rest], alive[rest]
        active.part.push(model.embed(token).unsqueeze(1), alive.unsqueeze(1))
        hidden = active.part.read()[:, -1]
    wide = keys.new_zeros(keys.shape[0], len(mask))
    answers = _Answers(ids.laid_out(wide + pad), mask.laid_out(wide), log_probs.laid_out(wide.float()))
    answers.log_probs = answers.log_probs * answers.mask
    if keys.device.type == "cpu":
        return answers
    written = max(1, int(answers.mask.any(dim=0).sum()))  # more columns than needed may have been read
    return _Answers(answers.ids[:, :written], answers.mask[:, :written], answers.log_probs[:, :written])


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
    context = model.start(question_ids, question_mask)
    context.push(latents, slot_mask)
    context.push(*model.end_latent(latents.shape[0]))
    keys = _token_keys(chain_keys, 0, 1, sampling.max_new_tokens)
    return _answers(model, context, context.read()[:, -1], keys, sampling).ids
