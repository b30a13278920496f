"""The rollout engine: batched latents of variable length, then answers, on one KV cache.

A question is read once and its cache shared by its group. Rows that have stopped or finished stay in the
batch with masked columns, which no other token sees. Each random number is a function of (seed, problem,
sample, position), so neither the batch size nor the order of questions changes a trajectory.
"""

from __future__ import annotations

from typing import cast

import torch

from latentplan.modeling import noise
from latentplan.modeling.context import Context
from latentplan.modeling.latents import LatentChain
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.rollout.log_probs import latent_log_prob
from latentplan.rollout.sampling import Sampling, draw, ends, log_softmax
from latentplan.rollout.trajectories import Trajectories

_LATENT, _STOP, _TOKEN = 0, 1, 2


def trajectory_keys(seed: int, problem_ids: torch.Tensor, samples: int) -> torch.Tensor:
    """Keys `[problems · samples]` of the noise of each problem's samples, from (seed, problem, sample)."""
    return noise.fold(
        seed, problem_ids.unsqueeze(1), torch.arange(samples, device=problem_ids.device)
    ).flatten()


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
    answers: int = 1,
) -> Trajectories:
    """Rolls out `draws` chains of latents for each question and `answers` answers for each chain.

    Args:
        model: the policy.
        question_ids, question_mask: `[questions, question]`, left-padded; for latent models with
            `<|start-latent|>` at the end.
        problem_ids: `[questions]` int64, what the noise of a question follows from, beside `seed`.
        seed: of the noise.
        sampling: temperatures and length.
        draws: chains of latents for each question.
        answers: answers for each chain.
    """
    context = model.start(question_ids, question_mask)
    hidden = context.read()[:, -1].repeat_interleave(draws, dim=0)
    context = context.repeat(draws)
    chain_keys = trajectory_keys(seed, problem_ids, draws)
    chain, stop_mask, stops, stop_log_probs = _latents(model, context, hidden, chain_keys, sampling)
    if model.config.num_slots:
        context.push(*model.end_latent(chain_keys.shape[0]))
        hidden = context.read()[:, -1]
    answer_keys = noise.fold(
        chain_keys.unsqueeze(1), torch.arange(answers, device=chain_keys.device)
    ).flatten()
    answer_ids, answer_mask, answer_log_probs = _answers(
        model, context.repeat(answers), hidden.repeat_interleave(answers, dim=0), answer_keys, sampling
    )
    return Trajectories(
        question_ids=question_ids,
        question_mask=question_mask,
        chain_keys=chain_keys,
        latents=chain.latents,
        slot_mask=chain.mask,
        stop_mask=stop_mask,
        stops=stops,
        latent_log_probs=latent_log_prob(chain, sampling.latent_temperature),
        stop_log_probs=stop_log_probs,
        answer_ids=answer_ids,
        answer_mask=answer_mask,
        answer_log_probs=answer_log_probs,
        finished=(ends(answer_ids, model.config.eos_token_id) & answer_mask.bool()).any(dim=1),
    )


def chain_noise(model: LatentReasoner, chain_keys: torch.Tensor) -> torch.Tensor:
    """The standard normal noise `[chains, slots, hidden]` that a rollout with these keys used."""
    return noise.slots(noise.fold(chain_keys, _LATENT), model.config.num_slots, model.config.hidden_size)


def _latents(
    model: LatentReasoner, context: Context, hidden: torch.Tensor, keys: torch.Tensor, sampling: Sampling
) -> tuple[LatentChain, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slot after slot; the stop head is asked at the first slot of each step."""
    config, rows = model.config, keys.shape[0]
    size, slots = config.latents_per_step, config.num_slots
    steps = slots // size
    latents = hidden.new_zeros(rows, slots, config.hidden_size, dtype=torch.float32)
    mean, log_variance = latents.clone(), latents.clone()
    slot_mask = keys.new_zeros(rows, slots)
    stop_mask, stops = keys.new_zeros(rows, steps), keys.new_zeros(rows, steps)
    stop_log_probs = latents.new_zeros(rows, steps)
    alive = keys.new_ones(rows)
    epsilon = chain_noise(model, keys) if slots else latents
    uniform = noise.uniform(noise.fold(keys, _STOP), max(1, steps))
    is_random = False
    for slot in range(slots):
        if slot:
            hidden = context.read()[:, -1]
        distribution = model.latent_head(hidden)  # type: ignore[misc]
        latents[:, slot] = distribution.sample(epsilon[:, slot], sampling.latent_temperature)
        mean[:, slot] = distribution.mean
        if distribution.log_variance is not None:
            log_variance[:, slot], is_random = distribution.log_variance, True
        step, offset = divmod(slot, size)
        if offset == 0 and model.stop_head is not None:
            log_probs = log_softmax(model.stop_head(latents[:, slot]), sampling.temperature)
            decision = draw(log_probs, uniform[:, step], sampling.temperature)
            stop_mask[:, step], stops[:, step] = alive, alive * decision
            stop_log_probs[:, step] = log_probs.gather(1, decision.unsqueeze(1)).squeeze(1) * alive
            alive = alive * (1 - decision)
            if not bool(alive.any()):
                break
        slot_mask[:, slot] = alive
        context.push(latents[:, slot : slot + 1], alive.unsqueeze(1))
    chain = LatentChain(latents, mean, log_variance if is_random else None, slot_mask)
    return chain, stop_mask, stops, stop_log_probs


def _answers(
    model: LatentReasoner, context: Context, hidden: torch.Tensor, keys: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token after token until every row has written eos."""
    uniform = noise.uniform(noise.fold(keys, _TOKEN), sampling.max_new_tokens)
    alive = torch.ones_like(keys)
    padding = torch.full_like(keys, cast(int, model.config.pad_token_id))
    ids, masks, chosen = [], [], []
    for position in range(sampling.max_new_tokens):
        log_probs = log_softmax(model.logits(hidden), sampling.temperature)
        token = draw(log_probs, uniform[:, position], sampling.temperature)
        chosen.append(log_probs.gather(1, token.unsqueeze(1)).squeeze(1) * alive)
        ids.append(torch.where(alive.bool(), token, padding))
        masks.append(alive)
        alive = alive * ~ends(token, model.config.eos_token_id)
        if position + 1 == sampling.max_new_tokens or not bool(alive.any()):
            break
        context.push(model.embed(ids[-1]).unsqueeze(1), alive.unsqueeze(1))
        hidden = context.read()[:, -1]
    return torch.stack(ids, 1), torch.stack(masks, 1), torch.stack(chosen, 1)


@torch.no_grad()
def answer_from(
    model: LatentReasoner,
    question_ids: torch.Tensor,
    question_mask: torch.Tensor,
    latents: torch.Tensor,
    slot_mask: torch.Tensor,
    answer_keys: torch.Tensor,
    sampling: Sampling,
) -> torch.Tensor:
    """Answers that follow given latents, for interventions: token ids `[batch, tokens]`, padded after eos.

    Args:
        model: the policy.
        question_ids, question_mask: `[batch, question]`, left-padded.
        latents: `[batch, slots, hidden]`, whatever they are.
        slot_mask: `[batch, slots]`, 1 where a slot is in use.
        answer_keys: `[batch]`, keys of the noise of the answer tokens.
        sampling: temperature and length of the answer.
    """
    context = model.start(question_ids, question_mask)
    context.push(latents, slot_mask)
    context.push(*model.end_latent(latents.shape[0]))
    ids, _, _ = _answers(model, context, context.read()[:, -1], answer_keys, sampling)
    return ids
