"""The honest baseline: the same latents, answers and losses, computed as published implementations do.

Written after reading facebookresearch/coconut, InternLM/SIM-CoT and zz1358m/ATP-Latent-master (November
2026); docs/papers.md names the files. What they share is kept here, and nothing is slowed down on purpose:

- a rollout has one question and one sample at a time;
- input embeddings are one tensor that is taken apart into Python lists, position by position of every row,
  and stacked again for every latent; earlier positions come from a KV cache (as published);
- every pass runs the output layer over all its positions and asks for all layers' hidden states;
- the answer is written without a KV cache, the whole sequence again for each token;
- a supervised batch decodes step after step, each with all rows, those without the step too.

The numbers drawn are those of `latentplan.rollout.engine`, so results can be compared token by token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from latentplan.encoding.processor import IGNORE, Batch
from latentplan.modeling import counter_rng
from latentplan.modeling.counter_rng import Stream
from latentplan.modeling.efficiency.chunked_logits import ends
from latentplan.modeling.latent_heads import standard_normal_kl
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling, draw
from latentplan.rollout.engine import chain_noise
from latentplan.training.trainable_model import LatentModelForTraining


@dataclass
class Trajectory:
    """One question, one chain of latents, one answer."""

    latents: torch.Tensor
    answer_ids: list[int]


def _stacked(rows: list[list[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([torch.stack(row) for row in rows])


def _read(reasoner: LatentReasoner, embeds: torch.Tensor, mask: torch.Tensor, start: int, cache, positions):
    """The columns of `embeds` from `start` on, after what the cache holds; with all logits, as published."""
    dtype = reasoner.backbone.dtype
    return reasoner.backbone(
        inputs_embeds=embeds[:, start:].to(dtype),
        attention_mask=mask[:, : embeds.shape[1]],
        position_ids=positions[:, start : embeds.shape[1]],
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=True,
    )


@torch.no_grad()
def roll_out_one(
    reasoner: LatentReasoner, question_ids: torch.Tensor, chain_key: torch.Tensor, sampling: Sampling
) -> Trajectory:
    """One trajectory of a question `[1, question]`; `chain_key` `[1]` as the engine's of the same sample."""
    config = reasoner.config
    epsilon = chain_noise(reasoner, chain_key)
    embeds = reasoner.embed(question_ids)
    ones = torch.ones(1, embeds.shape[1] + config.num_slots + 1, dtype=torch.long, device=embeds.device)
    positions = torch.arange(ones.shape[1], device=embeds.device)[None]
    cache, start, latents = DynamicCache(config=reasoner.backbone.config), 0, []
    for slot in range(config.num_slots):
        hidden = _read(reasoner, embeds, ones, start, cache, positions).hidden_states[-1]
        start = embeds.shape[1]
        latent = reasoner.latent_head(hidden[:, -1]).sample(epsilon[:, slot], sampling.latent_temperature)
        if slot % config.latents_per_step == 0 and reasoner.stop_head is not None:
            key = counter_rng.derive(chain_key, Stream.STOP, 0, slot // config.latents_per_step)
            if draw(reasoner.stop_head(latent), key, sampling.temperature).item():
                break
        latents.append(latent[0])
        rows = [[embeds[0, place] for place in range(embeds.shape[1])] + [latent[0].to(embeds.dtype)]]
        embeds = _stacked(rows)
    if config.num_slots:
        embeds = torch.cat([embeds, reasoner.end_latent(1)[0]], dim=1)
    written: list[int] = []
    for place in range(sampling.max_new_tokens):
        logits = reasoner.backbone(inputs_embeds=embeds.to(reasoner.backbone.dtype)).logits[:, -1]
        token = draw(logits, counter_rng.derive(chain_key, Stream.TOKEN, 0, 0, place), sampling.temperature)
        written.append(token.item())
        if ends(token, config.eos_token_id).item():
            break
        embeds = torch.cat([embeds, reasoner.embed(token[None])], dim=1)
    none = embeds.new_zeros(0, config.hidden_size)
    return Trajectory(torch.stack(latents) if latents else none, written)


def supervised_loss(system: LatentModelForTraining, batch: Batch) -> torch.Tensor:
    """The loss of a supervised ATP-Latent, SIM-CoT or Coconut batch, equal to `LatentModelForTraining`'s."""
    reasoner, weights = system.reasoner, system.weights
    question, slots = batch["question_ids"].shape[1], batch["slot_mask"].shape[1]
    mask = torch.cat([batch["question_mask"], batch["slot_mask"], batch["text_mask"]], dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    epsilon = counter_rng.slots(batch["noise_keys"], slots, reasoner.config.hidden_size) if slots else None
    blank = reasoner.embed(batch["question_ids"][:, :1]).expand(-1, slots, -1)
    embeds = torch.cat(
        [reasoner.embed(batch["question_ids"]), blank, reasoner.embed(batch["text_ids"])], dim=1
    )
    cache, start = DynamicCache(config=reasoner.backbone.config), 0
    latents, distributions = [], []
    for slot in range(slots):
        end = question + slot
        output = _read(reasoner, embeds[:, :end], mask, start, cache, positions)
        start = end
        distribution = reasoner.latent_head(output.hidden_states[-1][:, -1])
        latent = distribution.sample(epsilon[:, slot])
        rows = [[row[place] for place in range(embeds.shape[1])] for row in embeds]
        for row, value in zip(rows, latent, strict=True):
            row[end] = value.to(embeds.dtype)
        embeds = _stacked(rows)
        latents.append(latent)
        distributions.append(distribution)
    output = _read(reasoner, embeds, mask, start, cache, positions)
    before = (
        output.logits[:, -batch["text_ids"].shape[1] - 1 : -1]
        if slots
        else output.logits[:, question - 1 : -1]
    )
    labels = batch["labels"]
    total = (
        F.cross_entropy(before.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE) * weights["text"]
    )
    if slots and "step_decoder" in weights:
        total = total + weights["step_decoder"] * _decoder_loss(system, batch, torch.stack(latents, dim=1))
    if slots and "stop" in weights:
        unused = 1 - batch["slot_mask"]
        steps = slots // reasoner.config.latents_per_step
        losses = [
            F.cross_entropy(reasoner.stop_head(latent), unused[:, slot])
            for slot, latent in enumerate(latents)
        ]
        total = total + weights["stop"] * sum(losses) / steps
    if slots and "kl" in weights:
        used = batch["slot_mask"]
        parts = [
            standard_normal_kl(each.mean, each.log_variance).mean(dim=-1) * used[:, slot]
            for slot, each in enumerate(distributions)
        ]
        total = total + weights["kl"] * torch.stack(parts).sum() / used.sum()
    return total


def _decoder_loss(system: LatentModelForTraining, batch: Batch, latents: torch.Tensor) -> torch.Tensor:
    """Step after step with all rows; those without the step are decoded too and not counted."""
    decoder, size = system.step_decoder, system.reasoner.config.latents_per_step
    rows, losses = latents.shape[0], []
    longest = batch["step_ids"].shape[1]
    for step in range(latents.shape[1] // size):
        here = (batch["step_index"] == step).nonzero()[:, 0]
        ids = batch["step_ids"].new_zeros(rows, longest)
        labels = torch.full_like(ids, IGNORE)
        ids[batch["step_row"][here]] = batch["step_ids"][here]
        labels[batch["step_row"][here]] = batch["step_labels"][here]
        prefix = decoder.read(latents[:, step * size : (step + 1) * size]).to(decoder.backbone.dtype)
        tokens = decoder.get_input_embeddings()(ids)
        output = decoder.backbone(
            inputs_embeds=torch.cat([prefix, tokens], dim=1), use_cache=False, output_hidden_states=True
        )
        logits = output.logits[:, size - 1 : -1].float()
        if len(here):
            summed = F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
            )
            losses.append(summed / len(here))
    return torch.stack(losses).mean()
