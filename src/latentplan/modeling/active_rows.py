"""Which rows of a batch still go on: those that have ended leave it when they are half of it or more."""

from __future__ import annotations

from typing import cast

import torch

from latentplan.modeling.decoding_state import DecodingState

LOOKS_EVERY = {"cuda": 4}
"""Steps or tokens between two looks at how many rows still go on; a look waits for the device."""
WORTH_LEAVING = 8
"""Rows below which a smaller batch saves nothing."""


class ActiveRows:
    """The rows of a state that still go on.

    Attributes:
        part: the state that they are read with: the whole one, or one of these rows alone.
        index: where they are among all rows.
    """

    def __init__(self, state: DecodingState):
        self.whole = self.part = state
        self.index: torch.Tensor | slice = slice(None)
        self._every = LOOKS_EVERY.get(state.mask.device.type, 1)

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


def laid_out(parts: list[tuple[torch.Tensor | slice, torch.Tensor]], rows: int, width: int) -> torch.Tensor:
    """Joins columns, one after another, to `[rows, width, ...]`, with zeros where there are none.

    Args:
        parts: which rows (a slice: all), and their next columns, `[some rows, n, ...]`; one part at least.
        rows: of the batch.
        width: columns of the result.
    """
    if all(isinstance(index, slice) for index, _ in parts):
        joined = torch.cat([values for _, values in parts], dim=1)
        missing = width - joined.shape[1]
        return (
            torch.cat([joined, joined.new_zeros(rows, missing, *joined.shape[2:])], dim=1)
            if missing
            else joined
        )
    full, done = parts[0][1].new_zeros(rows, width, *parts[0][1].shape[2:]), 0
    for index, values in parts:
        full[index, done : done + values.shape[1]] = values
        done += values.shape[1]
    return full
