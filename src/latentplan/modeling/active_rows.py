"""Which rows of a batch still go on: those that have ended leave it when they are half of it or more."""

from __future__ import annotations

from typing import cast

import torch

from latentplan.modeling.context import Context

LOOKS_EVERY = {"cuda": 4}
"""Steps or tokens between two looks at how many rows still go on; a look waits for the device."""
WORTH_LEAVING = 8
"""Rows below which a smaller batch saves nothing."""


class ActiveRows:
    """The rows of a context that still go on.

    Attributes:
        part: the context that they are read with: the whole one, or one of these rows alone.
        index: where they are among all rows.
    """

    def __init__(self, context: Context):
        self.whole = self.part = context
        self.index: torch.Tensor | slice = slice(None)
        self._every = LOOKS_EVERY.get(context.mask.device.type, 1)

    def remaining(self, alive: torch.Tensor, place: int) -> torch.Tensor | None:
        """Which of the rows to keep, if any; None keeps all, for now.

        Args:
            alive: `[rows]`, 1 for a row that goes on; all rows of `part`.
            place: the number of the step or token.
        """
        if place % self._every:
            return None
        count, rows = int(alive.sum()), alive.shape[0]
        if count and (count > rows // 2 or rows < WORTH_LEAVING or not self.whole.can_shrink):
            return None
        return alive.nonzero()[:, 0]

    def column(self, values: torch.Tensor | None, place: int) -> torch.Tensor | None:
        """The column of `[all rows, columns, ...]` at a place, of these rows; None where there is nothing."""
        return None if values is None else values[self.index, place]

    def keep(self, rows: torch.Tensor) -> None:
        """Only these of the rows go on; the others are not read again."""
        self.part = self.part.selected(rows)
        self.index = rows if isinstance(self.index, slice) else self.index[rows]

    def set_aside(self, rows: torch.Tensor) -> None:
        """Only these of the rows go on until `together`."""
        self.together()
        self.index = rows if isinstance(self.index, slice) else self.index[rows]
        self.part = self.whole.selected(self.index)

    def together(self) -> None:
        """Brings all rows up to the last column again; those set aside have masked columns there."""
        if self.part is not self.whole:
            self.whole.put_back(cast(torch.Tensor, self.index), self.part)


class Columns:
    """What the rows that go on leave at each place, kept until it is laid out as one tensor.

    Args:
        active: the rows that the next column is of.
    """

    def __init__(self, active: ActiveRows):
        self._active = active
        self._columns: list[tuple[torch.Tensor | slice, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self._columns)

    def add(self, values: torch.Tensor) -> None:
        """The next column, `[rows, ...]`."""
        self._columns.append((self._active.index, values))

    def laid_out(self, like: torch.Tensor) -> torch.Tensor:
        """All columns in a copy of `like` `[all rows, columns, ...]`, whose values stand where none are."""
        whole = all(isinstance(rows, slice) for rows, _ in self._columns)
        if whole and len(self) and len(self) == like.shape[1]:
            return torch.stack([values for _, values in self._columns], dim=1).to(like.dtype)
        full = like.clone()
        for place, (rows, values) in enumerate(self._columns):
            full[rows, place] = values.to(like.dtype)
        return full
