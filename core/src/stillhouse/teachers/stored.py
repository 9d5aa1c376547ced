"""Predictions that were computed beforehand, held in memory and found by row id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from stillhouse.errors import RunFolderError
from stillhouse.forwarding import in_order, to_device
from stillhouse.teachers.source import TeacherSource
from stillhouse.types import Batch, Outputs, Split


class StoredTeacher:
    """Args:
    index: row ids ``[N]``.
    predictions: of these rows, ``[N, ...]``.
    """

    def __init__(self, index: Tensor, predictions: Tensor) -> None:
        self._rows = RowIndex(index)
        self._predictions = predictions

    @classmethod
    def of(cls, source: TeacherSource, splits: Sequence[Split], device: torch.device) -> Self:
        """What a source says of all rows of some splits."""
        found = [
            source(to_device(batch, device)).prediction.float().cpu() for split in splits for batch in in_order(split)
        ]
        return cls(torch.cat([split.index() for split in splits]), torch.cat(found))

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`.

        Raises:
            RunFolderError: a row has no stored prediction.
        """
        return Outputs(self._predictions[self._rows(batch["index"])].to(batch["index"].device))


class RowIndex:
    """Positions of row ids.

    Args:
        index: the ids ``[N]``, int64, in the order of the positions.
    """

    def __init__(self, index: Tensor) -> None:
        self._sorted, self._order = torch.sort(index)

    def __call__(self, index: Tensor) -> Tensor:
        """Positions ``[B]`` of the rows ``index`` ``[B]``, on the CPU.

        Raises:
            RunFolderError: a row is not there.
        """
        index = index.cpu()
        at = torch.searchsorted(self._sorted, index).clamp_max(len(self._sorted) - 1)
        missing = index[self._sorted[at] != index]
        if len(missing):
            raise RunFolderError(
                f"row {int(missing[0])} has no stored teacher output",
                where="teacher outputs",
                fix="remove the run's teacher folder; it is made again",
            )
        return self._order[at]
