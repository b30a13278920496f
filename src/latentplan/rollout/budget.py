"""How many trajectories fit into memory at once, so that a large request is split instead of failing."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import torch
from transformers import PreTrainedConfig

_SHARE = 0.8
"""Of the free memory; the rest is for what is not counted."""


def cache_bytes(backbone: PreTrainedConfig, positions: int, itemsize: int) -> int:
    """Keys and values of one sequence of `positions` tokens."""
    shape = backbone.get_text_config(decoder=True)
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    return 2 * positions * shape.num_hidden_layers * heads * width * itemsize


def vocabulary_bytes(vocabulary: int, itemsize: int) -> int:
    """One token's logits and log-probabilities, and the noise that it is drawn with."""
    return vocabulary * (itemsize + 4 * 4 + 2 * 8)


def free_bytes(device: torch.device) -> int:
    """Memory that a rollout may take on a device."""
    if device.type != "cuda":
        return int(_SHARE * psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(_SHARE * (free + reserved))


def pieces(questions: int, draws: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Ranges of questions and of each one's draws, with at most `at_once` chains in each (one at least).

    They come in the order of the chains: whole groups while these fit, else parts of one group after another.
    """
    at_once = max(1, at_once)
    groups = at_once // draws
    if groups:
        for start in range(0, questions, groups):
            yield slice(start, min(start + groups, questions)), slice(0, draws)
        return
    for question in range(questions):
        for start in range(0, draws, at_once):
            yield slice(question, question + 1), slice(start, min(start + at_once, draws))
