"""Training cost as floating-point operations, estimated from parameters and tokens; nothing is measured.

A token that a part reads costs 2·N forward, 2·N for the gradient of its activations and 2·T for that of its
weights, N being the part's parameters and T those that are trained: the usual 6·N where T = N (Kaplan et al.,
arXiv:2001.08361, section 2.1). With gradient checkpointing the forward pass is run, and counted, twice.
Attention's products, which grow with the length, are left out, and the output layer counts for every token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel


class TokenFlops(NamedTuple):
    """Operations for one token that a part reads: in a forward pass alone, and in a training step."""

    forward: float
    training: float


def token_flops(part: PreTrainedModel | None, recomputes: bool = False) -> TokenFlops:
    """The operations of a reasoner or step decoder, with its heads; nothing for None.

    Args:
        part: its embeddings count only where they are also the output layer, since looking up is no product.
        recomputes: whether the backward pass runs the forward pass again.
    """
    if part is None:
        return TokenFlops(0.0, 0.0)
    looked_up = _only_looked_up(part)
    used = [parameter for parameter in part.parameters() if parameter is not looked_up]
    everything = sum(map(_size, used))
    trained = sum(_size(parameter) for parameter in used if parameter.requires_grad)
    forward = 2.0 * everything
    return TokenFlops(forward, forward * (3 if recomputes else 2) + 2.0 * trained)


def _only_looked_up(part: PreTrainedModel) -> nn.Parameter | None:
    embeddings: torch.Tensor | None = getattr(part.get_input_embeddings(), "weight", None)
    output = getattr(part.get_output_embeddings(), "weight", None)
    return embeddings if isinstance(embeddings, nn.Parameter) and embeddings is not output else None


def _size(parameter: nn.Parameter) -> int:
    """Elements of a parameter, also where DeepSpeed has spread it over devices."""
    return getattr(parameter, "ds_numel", None) or parameter.numel()
