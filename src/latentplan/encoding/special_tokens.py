"""The three tokens that frame latent reasoning, and how they enter a tokenizer and an embedding table."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

START_LATENT = "<|start-latent|>"
LATENT = "<|latent|>"
END_LATENT = "<|end-latent|>"
SPECIAL_TOKENS = (START_LATENT, LATENT, END_LATENT)


def add_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Adds the three latent tokens to the tokenizer, and a padding token where it has none."""
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


@torch.no_grad()
def resize_embeddings(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, num_known: int) -> None:
    """Grows the backbone's embeddings to the tokenizer's size and initialises the new rows.

    New rows (token ids from `num_known` on) copy the embedding of `<<` where that is one token, else the mean
    of all known embeddings, as Coconut (arXiv:2412.06769) does, so that training starts inside the known
    distribution.
    """
    if len(tokenizer) > _embedding_tables(backbone)[0].shape[0]:
        backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    marker = tokenizer.encode("<<", add_special_tokens=False)
    for weight in _embedding_tables(backbone):
        known = weight[:num_known]
        fresh = known[marker[0]] if len(marker) == 1 and marker[0] < num_known else known.mean(dim=0)
        weight[num_known : len(tokenizer)] = fresh


def _embedding_tables(backbone: PreTrainedModel) -> list[torch.Tensor]:
    """The input and output embeddings, once where they are tied."""
    modules: list[Any] = [backbone.get_input_embeddings(), backbone.get_output_embeddings()]
    tables = {id(module.weight): module.weight for module in modules if module is not None}
    return list(tables.values())
