"""Sequences of different lengths, one a row, held behind each other and padded when a batch is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Ragged:
    """Rows of integers. The memory of all rows is that of their values, however long the longest row.

    Args:
        rows: the values of each row.
        fill: value that stands behind a row's end in a batch.
        dtype: of a batch.

    Attributes:
        lengths: length of each row ``[N]``, int64.
        values: all rows behind each other, int32.
    """

    def __init__(self, rows: Sequence[Sequence[int]], *, fill: int = 0, dtype: torch.dtype = torch.int64) -> None:
        self.fill, self.dtype = fill, dtype
        self.values = torch.tensor([value for row in rows for value in row], dtype=torch.int32)
        self.lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        self._starts = self.lengths.cumsum(0) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, position: int) -> Tensor:
        """The row at a position, ``[T]`` with its own length."""
        start, length = int(self._starts[position]), int(self.lengths[position])
        return self.values[start : start + length].to(self.dtype)

    def batch(self, where: Tensor) -> tuple[Tensor, Tensor]:
        """The rows at positions ``where`` ``[B]``, padded to the longest of them ``[B, T]``, and where they have a
        value ``[B, T]`` bool."""
        lengths = self.lengths[where].unsqueeze(1)
        steps = torch.arange(int(lengths.max()) if len(where) else 0)
        there = steps < lengths
        at = (self._starts[where].unsqueeze(1) + steps).clamp_max(max(len(self.values) - 1, 0))
        values = self.values[at] if len(self.values) else torch.zeros(there.shape, dtype=torch.int32)
        return torch.where(there, values.to(self.dtype), torch.tensor(self.fill, dtype=self.dtype)), there
