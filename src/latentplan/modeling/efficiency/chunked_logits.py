"""Chunked logits: log-probabilities of tokens without holding the logits of all positions in memory.

Callers pass only the positions that they need. Where there are many, logits are computed for one chunk of
them at a time; with gradients, the logits of a chunk are recomputed in the backward pass, so that memory
holds one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from latentplan.modeling.efficiency.linear_layers import checkpointable

LOGITS_AT_ONCE = 2**27
"""Logits of a chunk: half a gigabyte in float32."""


class Writer(Protocol):
    """A model that writes text: `LatentReasoner`, `StepDecoder`."""

    backbone: PreTrainedModel

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps hidden states `[n, hidden]` to float32 logits `[n, vocabulary]`."""


def ends(ids: torch.Tensor, eos_token_id: int | list[int] | None) -> torch.Tensor:
    """Says which token ids end a text, a bool tensor of the same shape; a model may have several such ids."""
    ended = torch.zeros_like(ids, dtype=torch.bool)
    for index in [eos_token_id] if isinstance(eos_token_id, int) else eos_token_id or []:
        ended = ended | (ids == index)
    return ended


def mask_indices(mask: torch.Tensor) -> torch.Tensor:
    """Returns the flat indices `[n]` at which a mask `[rows, columns]` is set."""
    return mask.flatten().nonzero()[:, 0]


def at_indices(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Returns the entries `[n, ...]` of `values` `[rows, columns, ...]` at flat indices `[n]`."""
    return values.flatten(0, 1).index_select(0, indices)


def from_indices(values: torch.Tensor, indices: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Returns `[rows, columns]`, as `like`, with `values` `[n]` at flat indices `[n]` and 0 elsewhere."""
    return values.new_zeros(like.numel()).index_put((indices,), values).view(like.shape)


def token_log_probs(
    model: Writer, hidden: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Computes log softmax(logits / temperature) of the given tokens, float32 `[n]`.

    Args:
        model: gives the logits.
        hidden: `[n, hidden]`, the last hidden state before each token.
        ids: `[n]`.
        temperature: above 0.
    """

    def chunk(hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return _chosen(_scaled(model.logits(hidden), temperature), ids)

    return torch.cat(_in_chunks(model, chunk, hidden, ids))


def token_log_probs_and_entropy(
    model: Writer, hidden: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes `token_log_probs` and the entropy of each distribution in nats, `[n]` each.

    The entropy has no gradient.
    """

    def chunk(hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        scaled = _scaled(model.logits(hidden), temperature)
        return torch.stack([_chosen(scaled, ids), _entropy(scaled.detach())])

    log_probs, entropy = torch.cat(_in_chunks(model, chunk, hidden, ids), dim=1)
    return log_probs, entropy.detach()


def _in_chunks(
    model: Writer,
    chunk: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    ids: torch.Tensor,
) -> list[torch.Tensor]:
    vocabulary = model.backbone.config.get_text_config(decoder=True).vocab_size
    rows = max(1, LOGITS_AT_ONCE // vocabulary)
    # Also without any position: where the layer is sharded, all devices must run it.
    if len(ids) <= rows or _gathers_at_each_call(model.backbone.get_output_embeddings()):
        return [chunk(hidden, ids)]
    pairs = zip(hidden.split(rows), ids.split(rows), strict=True)
    if not torch.is_grad_enabled():
        return [chunk(*pair) for pair in pairs]
    return [checkpoint(checkpointable(chunk), *pair, use_reentrant=False) for pair in pairs]


def _gathers_at_each_call(layer: nn.Module) -> bool:
    """Says whether every call of the layer is an all-gather, so that all devices must call it equally often.

    This holds under DeepSpeed ZeRO-3, and where the layer is an FSDP2 unit of its own (in our configuration
    it belongs to the unit of the whole model, which is gathered once).
    """
    return hasattr(layer, "unshard") or any(hasattr(weight, "ds_id") for weight in layer.parameters())


def _scaled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return logits if temperature == 1 else logits / temperature


def _chosen(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    # One tensor of the logits' size is kept for the gradient; a gather and a logsumexp would need three.
    return -F.cross_entropy(logits, ids, reduction="none")


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    log_total = logits.logsumexp(dim=1)
    return log_total - ((logits - log_total.unsqueeze(1)).exp_() * logits).sum(dim=1)
