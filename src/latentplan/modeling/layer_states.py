"""What every layer of a backbone knows at one position of each row (CODI distils it)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from latentplan.modeling.efficiency.gradient_checkpointing import decoder_layers


@contextmanager
def layer_inputs(backbone: PreTrainedModel, columns: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Inside, a pass appends the input of each layer at one column of each row, `[batch, hidden]`.

    The first entry is the embedding, every other the output of the layer before it; what comes out of the
    last layer, after the final norm, is what the pass returns. Gradients flow through.

    Args:
        backbone: which reads once inside the block.
        columns: `[batch]`, counted from the first column that is read.
    """
    rows = torch.arange(columns.shape[0], device=columns.device)
    found: list[torch.Tensor] = []

    def keep(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        found.append(hidden[rows, columns])

    layers = decoder_layers(backbone)
    handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
