"""Sliding windows that count positions, where transformers counts columns.

A masked column (padding, an unused latent slot) must not use up a window, or a row's result would depend on
its neighbours. So the cache keeps every column, and where there are more columns than a window is wide the
masks are made here, from positions. FlashAttention drops masked columns by itself and counts as we do.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from latentplan.modeling.growing_cache import GrowingLayer

_CHUNKED = "chunked_attention"


class Windows:
    """Which layers of a language model see how far back.

    Args:
        config: the language model's configuration.
    """

    def __init__(self, config: PreTrainedConfig):
        self.config = config.get_text_config(decoder=True)
        self._layers = [
            getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers
        ]
        kinds = getattr(self.config, "layer_types", None) or [""] * len(self._layers)
        self.kinds: dict[str, int | None] = dict(zip(kinds, self._layers, strict=False))
        # ALiBi is computed from the mask `[batch, columns]`.
        self._biased = self.config.model_type == "bloom" or getattr(self.config, "alibi", False)

    @property
    def narrowest(self) -> int | None:
        """Positions in the narrowest window; None where every layer sees everything."""
        return min((window for window in self._layers if window is not None), default=None)

    def new_cache(self) -> DynamicCache:
        """A cache that keeps every column of every layer, written in place where no gradients are wanted."""
        plain = DynamicLayer if torch.is_grad_enabled() else GrowingLayer
        cache = DynamicCache(config=self.config)
        cache.layers = [
            plain() if window is not None or type(layer) is DynamicLayer else layer
            for layer, window in zip(cache.layers, self._layers, strict=True)
        ]
        return cache

    def attention_mask(self, mask: torch.Tensor, queries: int, dtype: torch.dtype) -> Any:
        """What the language model takes as its `attention_mask`.

        Args:
            mask: `[batch, columns]`, 1 where a column counts.
            queries: how many columns, the last ones, are being read.
            dtype: of the language model.

        Returns:
            `mask` itself where no window matters; else an additive mask `[batch, 1, queries, columns]`, or a
            dictionary of them by the kind of layer, for models with several.

        Raises:
            ValueError: the attention implementation takes no such masks.
        """
        implementation = self.config._attn_implementation or "eager"
        if "flash" in implementation:
            return mask
        if self.narrowest is None or mask.shape[1] <= self.narrowest:
            return self._of_one_token(mask, dtype, implementation) if queries == 1 else mask
        if implementation not in ("eager", "sdpa"):
            raise ValueError(
                f"attn_implementation {implementation!r} cannot read {mask.shape[1]} tokens with a sliding "
                f"window of {self.narrowest}: set attn_implementation to sdpa, eager or flash_attention_2"
            )
        masks = {kind: self._additive(kind, mask, queries, dtype) for kind in self.kinds}
        return masks if len(masks) > 1 else masks.popitem()[1]

    def takes_ready_masks(self, columns: int) -> bool:
        """Whether one token's mask over so many columns may be made here."""
        implementation = self.config._attn_implementation or "eager"
        wide = self.narrowest is not None and columns > self.narrowest
        return implementation in ("eager", "sdpa") and not wide and not self._biased

    def _of_one_token(self, mask: torch.Tensor, dtype: torch.dtype, implementation: str) -> Any:
        """The mask as attention reads it: transformers would make the same of `mask`, more slowly.

        It would also ask the device whether anything is masked at all, and wait for the answer.
        """
        if not self.takes_ready_masks(mask.shape[1]):
            return mask
        seen = mask[:, None, None, :].bool()
        if implementation == "eager":
            blocked = torch.zeros(seen.shape, dtype=dtype, device=mask.device)
            seen = blocked.masked_fill(~seen, torch.finfo(dtype).min)
        return dict.fromkeys(self.kinds, seen) if len(self.kinds) > 1 else seen

    def _additive(self, kind: str, mask: torch.Tensor, queries: int, dtype: torch.dtype) -> torch.Tensor:
        column = torch.arange(mask.shape[1], device=mask.device)
        position = mask.cumsum(dim=1)
        reading, past = position[:, -queries:, None], position[:, None, :]
        seen = mask[:, None, :].bool() & (column <= column[-queries:, None])
        width = self.kinds[kind]
        if width is not None and kind == _CHUNKED:
            seen = seen & ((reading - 1) // width == (past - 1) // width)
        elif width is not None:
            seen = seen & (reading - past < width)
        blocked = torch.zeros(seen.shape, dtype=dtype, device=mask.device)
        return blocked.masked_fill(~seen, torch.finfo(dtype).min).unsqueeze(1)
