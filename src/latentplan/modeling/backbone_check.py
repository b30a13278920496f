"""`probe`: a test of a loaded backbone on a few tokens."""

from __future__ import annotations

import logging

import torch
from transformers import PreTrainedModel

from latentplan.modeling.backbones import UnsupportedBackboneError, finish_logits
from latentplan.modeling.decoding_state import DecodingState

logger = logging.getLogger(__name__)
_TOKENS = 6


@torch.no_grad()
def probe(backbone: PreTrainedModel) -> None:
    """Checks a loaded backbone on two rows of six tokens, in a few short forward passes.

    Weights on the meta device and sharded weights are not checked: probe before sharding.

    Raises:
        UnsupportedBackboneError: its embeddings and hidden states differ in width, it takes no embeddings,
            its cache does not grow with the columns, reading in two parts differs from reading at once,
            masked columns change its result, or its logits differ from those computed here.
    """
    if any(weight.is_meta or weight.numel() == 0 for weight in backbone.parameters()):
        logger.info(
            "%s is not probed: its full parameters are not on this device", backbone.config.model_type
        )
        return
    training = backbone.training
    backbone.eval()
    try:
        _probe(backbone)
    finally:
        backbone.train(training)


def _probe(backbone: PreTrainedModel) -> None:
    table = backbone.get_input_embeddings()
    hidden_size = backbone.config.get_text_config(decoder=True).hidden_size
    ids = torch.arange(2 * _TOKENS, device=backbone.device).reshape(2, _TOKENS) * 7 + 3
    ids = ids % backbone.config.get_text_config(decoder=True).vocab_size
    embeds = table(ids)
    if embeds.shape[-1] != hidden_size:
        _refuse(
            backbone, f"its embeddings have width {embeds.shape[-1]}, its hidden states width {hidden_size}"
        )
    try:
        at_once, length = _read(backbone, [embeds], torch.ones_like(ids))
    except Exception as error:
        raise UnsupportedBackboneError(
            backbone.config, f"it cannot read embeddings with a key-value cache ({error})"
        ) from error
    if length != _TOKENS:
        _refuse(backbone, f"its cache holds {length} columns after {_TOKENS} tokens")
    parts, _ = _read(backbone, [embeds[:, :4], embeds[:, 4:]], torch.ones_like(ids))
    if not _close(parts, at_once):
        _refuse(backbone, "reading in two parts differs from reading at once, so it looks ahead or forgets")
    mask = torch.tensor([[0, 1, 1, 0, 1, 1], [1] * _TOKENS], device=ids.device)
    masked, _ = _read(backbone, [embeds[:, :4], embeds[:, 4:]], mask)
    seen = mask[0].bool()
    alone, _ = _read(backbone, [embeds[:1, seen]], mask[:1, seen])
    if not _close(masked[0, seen], alone[0]):
        _refuse(backbone, "masked columns change its result, and unused slots and padding are masked columns")
    ours = finish_logits(backbone.config, backbone.get_output_embeddings()(at_once))
    if not _close(ours, backbone(input_ids=ids).logits):
        _refuse(backbone, "its logits are more than its output embeddings times the last hidden state")


def _read(backbone: PreTrainedModel, parts: list[torch.Tensor], mask: torch.Tensor) -> tuple:
    """Reads inputs part by part; returns hidden states `[batch, tokens, hidden]` and the cache's length."""
    state = DecodingState(backbone, parts[0], mask[:, : parts[0].shape[1]])
    hidden, start = [state.read()], parts[0].shape[1]
    for part in parts[1:]:
        state.append(part, mask[:, start : start + part.shape[1]])
        hidden.append(state.read())
        start += part.shape[1]
    return torch.cat(hidden, dim=1), state.cache.get_seq_length()


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Says whether two results are equal up to rounding of their dtype, on average."""
    tolerance = 1e-3 if one.dtype == torch.float32 and other.dtype == torch.float32 else 0.1
    difference = (one.float() - other.float()).abs().mean()
    return bool(difference <= tolerance * other.float().abs().mean().clamp(min=1e-6))


def _refuse(backbone: PreTrainedModel, reason: str) -> None:
    raise UnsupportedBackboneError(backbone.config, reason)
