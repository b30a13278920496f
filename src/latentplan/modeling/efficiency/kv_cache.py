"""The KV cache of rollouts, and attention masks for sliding windows over it.

`GrowingLayer` writes keys and values in place into reserved memory, so that no pass copies earlier columns.
It returns views of this memory, all of which autograd would have to keep; passes with gradients use
transformers' own cache, which concatenates.

`Windows` makes sliding windows count positions, where transformers counts columns. A masked column
(padding, an unused latent slot) must not use up a window, or a row's result would depend on the rows beside
it. So the cache keeps every column, and where there are more columns than a window is wide, masks are made
here from positions. FlashAttention drops masked columns by itself and counts positions, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

_HEADROOM = 32
"""Columns that are reserved in addition to those that are needed."""


def reserved(columns: int) -> int:
    """Returns how many columns are reserved at most where so many are read, one after another."""
    return 2 * columns


class GrowingLayer(DynamicLayer):
    """A layer's keys and values `[batch, heads, tokens, head]`, the first columns of reserved memory."""

    keys: torch.Tensor
    values: torch.Tensor
    _keys: torch.Tensor
    _values: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Reserves memory for a first pass of this size."""
        self.dtype, self.device = key_states.dtype, key_states.device
        width = key_states.shape[-2] + _HEADROOM
        self._keys, self._values = _reserve(key_states, width), _reserve(value_states, width)
        self._show(0)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the columns of a pass after the earlier ones; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            # Memory doubles each time, so that a rollout copies each column once on average.
            self._resize(reserved(end))
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def repeated(self, times: int) -> GrowingLayer:
        """Returns a copy with each row repeated `times` times."""
        other = GrowingLayer()
        if self.is_initialized:
            other.lazy_initialization(
                *(part[:1].expand(part.shape[0] * times, -1, -1, -1) for part in (self.keys, self.values))
            )
            other._show(self.keys.shape[-2])
            for new, old in ((other.keys, self.keys), (other.values, self.values)):
                new.unflatten(0, (-1, times)).copy_(old.unsqueeze(1))
        return other

    def selected(self, rows: torch.Tensor) -> GrowingLayer:
        """Returns a copy of some rows, `[n]` indices."""
        other = GrowingLayer()
        if self.is_initialized:
            keys, values = self.keys[rows], self.values[rows]
            other.lazy_initialization(keys, values)
            other._show(keys.shape[-2])
            other.keys.copy_(keys)
            other.values.copy_(values)
        return other

    @classmethod
    def merged(cls, parts: Sequence[tuple[GrowingLayer, torch.Tensor, int]]) -> GrowingLayer:
        """Joins rows of several layers, aligned at their last column.

        Shorter ones have zeros on the left, and not uninitialised memory: see `put_back`.

        Args:
            parts: layers, each with the indices of its rows, `[n]`, and its first column.
        """
        like, width = parts[0][0].keys, max(layer.keys.shape[-2] - start for layer, _, start in parts)
        rows = sum(len(chosen) for _, chosen, _ in parts)
        new = cls()
        # Expanded from the first entry, which takes no memory.
        new.lazy_initialization(*(like[:1, :, :1].expand(rows, -1, width, -1) for _ in range(2)))
        new._show(width)
        done = 0
        for layer, chosen, start in parts:
            those, missing = slice(done, done + len(chosen)), width - (layer.keys.shape[-2] - start)
            for mine, theirs in ((new.keys, layer.keys), (new.values, layer.values)):
                mine[those, :, :missing] = 0
                torch.index_select(theirs[:, :, start:], 0, chosen, out=mine[those, :, missing:])
            done += len(chosen)
        return new

    def write_first(
        self,
        rows: torch.Tensor | slice,
        shape: tuple[int, int],
        key_states: torch.Tensor,
        value_states: torch.Tensor,
    ) -> None:
        """Writes the first pass of some rows into the last columns, with zeros before it: see `put_back`.

        Args:
            rows: indices among all rows.
            shape: of the layer: number of rows and of columns.
            key_states, value_states: `[some rows, heads, tokens, head]`.
        """
        count, width = shape
        if not self.is_initialized:
            self.lazy_initialization(
                *(part[:1, :, :1].expand(count, -1, width, -1) for part in (key_states, value_states))
            )
            self._show(width)
        missing = width - key_states.shape[-2]
        for mine, theirs in ((self.keys, key_states), (self.values, value_states)):
            mine[rows, :, :missing] = 0
            mine[rows, :, missing:] = theirs

    def truncate(self, columns: int) -> None:
        """Drops the last columns; their memory is written again."""
        self._show(self.keys.shape[-2] - columns)

    def reorder(self, order: torch.Tensor) -> None:
        """Reorders the columns of each row by indices `[rows, columns]`, which may leave some out."""
        index = order[:, None, :, None]
        packed = [part.take_along_dim(index, dim=2) for part in (self.keys, self.values)]
        self._show(order.shape[1])
        for part, values in zip((self.keys, self.values), packed, strict=True):
            part.copy_(values)

    def put_back(self, rows: torch.Tensor, other: GrowingLayer) -> None:
        """Writes the columns that `other`, a copy of these rows, has read since; other rows get zeros there.

        Uninitialised memory could hold NaN, and attention does not remove a masked NaN.
        """
        start, end = self.keys.shape[-2], other.keys.shape[-2]
        if end > self._keys.shape[-2]:
            self._resize(reserved(end))
        self._show(end)
        self.keys[:, :, start:end] = 0
        self.values[:, :, start:end] = 0
        self.keys[rows, :, start:end] = other.keys[:, :, start:end]
        self.values[rows, :, start:end] = other.values[:, :, start:end]

    def _show(self, end: int) -> None:
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]

    def _resize(self, width: int) -> None:
        keys, values = self.keys, self.values
        end = keys.shape[-2]
        self._keys, self._values = _reserve(keys, width), _reserve(values, width)
        self._show(end)
        self.keys.copy_(keys)
        self.values.copy_(values)


def _reserve(like: torch.Tensor, width: int) -> torch.Tensor:
    return like.new_empty(like.shape[0], like.shape[1], width, like.shape[3])


_CHUNKED = "chunked_attention"


class Windows:
    """The attention windows of a language model's layers.

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
        """The positions in the narrowest window; None where every layer attends to all positions."""
        return min((window for window in self._layers if window is not None), default=None)

    def new_cache(self) -> DynamicCache:
        """Returns a cache that keeps all columns, in reserved memory where gradients are disabled."""
        plain = DynamicLayer if torch.is_grad_enabled() else GrowingLayer
        cache = DynamicCache(config=self.config)
        cache.layers = [
            plain() if window is not None or type(layer) is DynamicLayer else layer
            for layer, window in zip(cache.layers, self._layers, strict=True)
        ]
        return cache

    def attention_mask(self, mask: torch.Tensor, queries: int, dtype: torch.dtype) -> Any:
        """Returns what the language model takes as its `attention_mask`.

        Args:
            mask: `[batch, columns]`, 1 where a column is visible.
            queries: number of columns, the last ones, that are read now.
            dtype: of the language model.

        Returns:
            `mask` itself where no window is exceeded; else an additive mask `[batch, 1, queries, columns]`,
            or a dictionary of such masks by the kind of layer, for models with several kinds.

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
        """Says whether the mask of a single token over so many columns can be made here."""
        implementation = self.config._attn_implementation or "eager"
        wide = self.narrowest is not None and columns > self.narrowest
        return implementation in ("eager", "sdpa") and not wide and not self._biased

    def _of_one_token(self, mask: torch.Tensor, dtype: torch.dtype, implementation: str) -> Any:
        """Returns the mask in the form that attention takes, as transformers makes it of `mask`, only faster.

        transformers would also wait for the device to know whether anything is masked.
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
