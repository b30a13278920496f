"""`AllocationLedger`: how many bytes are alive while tensors are computed, and the most that ever were.

It sees every tensor that an operation makes, on real tensors and on fake ones, which have shapes and no
memory, and notes when the storage behind it is freed. What the allocator adds (rounding, fragmentation,
workspaces of libraries) it does not see.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocationLedger(TorchDispatchMode):
    """Counts the bytes of storages that appear inside `with ledger:`.

    Args:
        existing: tensors whose storages were there before and are not counted.

    Attributes:
        live: bytes alive now.
        peak: bytes alive at most.
    """

    def __init__(self, existing: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, int] = {}
        for tensor in existing:
            self._note(tensor, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and counts what it has made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor, None)
        return result

    def _note(self, tensor: torch.Tensor, size: int | None) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        self._known[key] = storage.nbytes() if size is None else size
        self.live += self._known[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)
