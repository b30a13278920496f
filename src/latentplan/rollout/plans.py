"""Reading plans: each chain of latents decoded, step by step, into text."""

from __future__ import annotations

import re

import torch
from transformers import PreTrainedTokenizerBase

from latentplan.modeling.step_decoder import StepDecoder

Plan = list[str]


def decode_plans(
    decoder: StepDecoder,
    tokenizer: PreTrainedTokenizerBase,
    latents: torch.Tensor,
    slot_mask: torch.Tensor,
    max_new_tokens: int = 64,
) -> list[Plan]:
    """The decoded steps of each chain; all (chain, step) pairs go through the decoder in one batch.

    Args:
        decoder: the step decoder.
        tokenizer: of the decoder's text.
        latents: `[chains, slots, hidden]`.
        slot_mask: `[chains, slots]`, 1 where a slot is in use.
        max_new_tokens: tokens of a step at most.
    """
    size = decoder.config.latents_per_step
    by_step = latents.unflatten(1, (-1, size))
    used = slot_mask[:, ::size].bool()
    plans: list[Plan] = [[] for _ in range(latents.shape[0])]
    if not bool(used.any()):
        return plans
    texts = tokenizer.batch_decode(decoder.decode(by_step[used], max_new_tokens), skip_special_tokens=True)
    for row, text in zip(used.nonzero()[:, 0].tolist(), texts, strict=True):
        plans[row].append(text.strip())
    return plans


def written_plan(completion: str, step_separator: str, answer_marker: str) -> Plan:
    """The steps that a written chain of thought holds before its answer."""
    steps, _, _ = completion.partition(answer_marker.strip())
    if step_separator.strip(" "):
        return [step.strip() for step in steps.split(step_separator) if step.strip()]
    return re.findall(r"<<.*?>>", steps, flags=re.DOTALL) or ([steps.strip()] if steps.strip() else [])
