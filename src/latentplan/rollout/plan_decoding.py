"""Plans: each chain of latents decoded, step by step, into text.

Plans can also be sampled from the step decoder, so that their tokens are actions of the policy. A reward that
is read off the plan, such as coherence, does not depend on the answer's tokens, and a pathwise gradient could
not reach the latents from it. Where the decoder draws the plan, the latents decide how likely each of its
tokens is, and the frozen decoder is what the gradient goes through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

import torch
from transformers import PreTrainedTokenizerBase

from latentplan.modeling import counter_rng
from latentplan.modeling.counter_rng import Draws, Stream
from latentplan.modeling.efficiency.chunked_logits import (
    at_indices,
    from_indices,
    mask_indices,
    token_log_probs,
)
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.modeling.token_loop import write
from latentplan.rollout.trajectories import Trajectories

Plan = list[str]


def decode_plans(
    decoder: StepDecoder,
    tokenizer: PreTrainedTokenizerBase,
    latents: torch.Tensor,
    slot_mask: torch.Tensor,
    max_new_tokens: int = 64,
) -> list[Plan]:
    """Returns the decoded steps of each chain; all (chain, step) pairs go through the decoder in one batch.

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
    """Returns the different ones among float32 rows `[n, width]`, and which of them each row is, `[n]`.

    Rows are compared by a hash of 64 bits first: sorting whole latents would cost more than it saves.
    """
    indices = torch.arange(rows.shape[1], device=rows.device)
    hashed = counter_rng.mix(rows.contiguous().view(torch.int32).long() ^ counter_rng.fold(indices)).sum(
        dim=1
    )
    found, which = hashed.unique(return_inverse=True)
    first = torch.full_like(found, len(rows)).scatter_reduce(
        0, which, torch.arange(len(rows), device=rows.device), "amin"
    )
    if not torch.equal(rows[first][which], rows):  # two rows of one hash
        return rows, torch.arange(len(rows), device=rows.device)
    return rows[first], which


def written_plan(completion: str, step_separator: str, answer_marker: str) -> Plan:
    """Returns the steps that a written chain of thought holds before its answer."""
    steps, _, _ = completion.partition(answer_marker.strip())
    if step_separator.strip(" "):
        return [step.strip() for step in steps.split(step_separator) if step.strip()]
    return re.findall(r"<<.*?>>", steps, flags=re.DOTALL) or ([steps.strip()] if steps.strip() else [])


MAX_STEP_TOKENS = 64


@dataclass
class PlanTokens:
    """The tokens of the plans of a batch of chains.

    Attributes:
        ids: `[chains, steps, tokens]`, eos included.
        mask: `[chains, steps, tokens]`, 1 where a token was drawn.
        log_probs: `[chains, steps, tokens]`, when they were drawn.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor

    def select(self, chains: slice) -> PlanTokens:
        """Returns the plans of a range of chains."""
        return PlanTokens(*(getattr(self, item.name)[chains] for item in fields(self)))


@torch.no_grad()
def sample_plans(
    decoder: StepDecoder,
    tokenizer: PreTrainedTokenizerBase,
    trajectories: Trajectories,
    temperature: float,
    max_new_tokens: int = MAX_STEP_TOKENS,
) -> tuple[list[Plan], PlanTokens]:
    """Returns one plan of each chain, drawn at `temperature` with noise that follows from the chain's key.

    Args:
        decoder: the step decoder.
        tokenizer: of the decoder's text.
        trajectories: with the chains of latents.
        temperature: of the decoder's tokens, above 0.
        max_new_tokens: tokens of a step at most.

    Returns:
        the decoded steps of each chain, and their tokens.
    """
    size = decoder.config.latents_per_step
    by_step = trajectories.latents.unflatten(1, (-1, size))
    used = trajectories.slot_mask[:, ::size].bool()
    row, step = used.nonzero(as_tuple=True)
    position = torch.arange(max_new_tokens, device=row.device)
    keys = counter_rng.derive(
        trajectories.chain_keys[row].unsqueeze(1), Stream.PLAN, step.unsqueeze(1), position
    )
    written = write(
        decoder,
        decoder.start(by_step[row, step]),
        max_new_tokens if len(row) else 0,
        temperature=temperature,
        draws=Draws(tokens=keys),
    )
    ids, mask, log_probs = written.ids, written.mask, written.log_probs
    assert log_probs is not None
    tokens = PlanTokens(
        *(
            values.new_zeros(*used.shape, ids.shape[1]).index_put((row, step), values)
            for values in (ids, mask, log_probs)
        )
    )
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True) if len(row) else []
    plans: list[Plan] = [[] for _ in range(used.shape[0])]
    for chain, text in zip(row.tolist(), texts, strict=True):
        plans[chain].append(text.strip())
    return plans, tokens


def score_plans(
    decoder: StepDecoder, latents: torch.Tensor, tokens: PlanTokens, temperature: float
) -> torch.Tensor:
    """Computes log-probabilities of drawn plans, as functions of the latents: `[chains, steps, tokens]`.

    Args:
        decoder: the step decoder, whose weights stay as they are.
        latents: `[chains, slots, hidden]`.
        tokens: the plans.
        temperature: at which they were drawn.
    """
    by_step = latents.unflatten(1, (-1, decoder.config.latents_per_step))
    row, step = tokens.mask.any(dim=2).nonzero(as_tuple=True)
    if not len(row):
        # Where the decoder is spread over devices, all of them must run it.
        unread = decoder(by_step[:1, 0], tokens.ids.new_zeros(1, 1))
        return 0.0 * unread.sum() + latents.new_zeros(tokens.ids.shape, dtype=torch.float32)
    ids, mask = tokens.ids[row, step], tokens.mask[row, step]
    where = mask_indices(mask)
    hidden = decoder.hidden_states(by_step[row, step], ids)
    chosen = token_log_probs(decoder, at_indices(hidden, where), at_indices(ids, where), temperature)
    return latents.new_zeros(tokens.ids.shape, dtype=torch.float32).index_put(
        (row, step), from_indices(chosen, where, mask)
    )
