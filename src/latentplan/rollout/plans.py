"""Reading plans: each chain of latents decoded, step by step, into text."""

from __future__ import annotations

import re

import torch
from transformers import PreTrainedTokenizerBase

from latentplan.modeling import counter_rng as noise
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

    Steps with the same latents, as all samples of a group have without noise, are decoded once.

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
    prefixes, which = distinct(by_step[used].flatten(1))
    ids = decoder.decode(prefixes.unflatten(1, (size, -1)), max_new_tokens)
    texts = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    for row, prefix in zip(used.nonzero()[:, 0].tolist(), which.tolist(), strict=True):
        plans[row].append(texts[prefix])
    return plans


def distinct(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The different ones among float32 rows `[n, width]`, and which of them each row is, `[n]`.

    Rows are compared by a hash of 64 bits first: sorting whole latents would cost more than it saves.
    """
    places = torch.arange(rows.shape[1], device=rows.device)
    hashed = noise.mix(rows.contiguous().view(torch.int32).long() ^ noise.fold(places)).sum(dim=1)
    found, which = hashed.unique(return_inverse=True)
    first = torch.full_like(found, len(rows)).scatter_reduce(
        0, which, torch.arange(len(rows), device=rows.device), "amin"
    )
    if not torch.equal(rows[first][which], rows):  # two rows of one hash
        return rows, torch.arange(len(rows), device=rows.device)
    return rows[first], which


def written_plan(completion: str, step_separator: str, answer_marker: str) -> Plan:
    """The steps that a written chain of thought holds before its answer."""
    steps, _, _ = completion.partition(answer_marker.strip())
    if step_separator.strip(" "):
        return [step.strip() for step in steps.split(step_separator) if step.strip()]
    return re.findall(r"<<.*?>>", steps, flags=re.DOTALL) or ([steps.strip()] if steps.strip() else [])
