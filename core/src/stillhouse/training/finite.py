"""The watch over losses that are not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.errors import TrainingError
from stillhouse.types import Batch


class FiniteGuard:
    """Stops at a loss that is not finite and names the rows; asks the device every 50 steps on an accelerator.

    Args:
        what: whose loss it is, e.g. ``"the loss of student, seed 0"``.
        epoch: counted from 0.
        fix: advice beside that on the rows.
    """

    def __init__(self, what: str, epoch: int, *, fix: str) -> None:
        self._what, self._epoch, self._fix = what, epoch, fix
        self._pending: list[tuple[Tensor, Batch]] = []

    def watch(self, total: Tensor, batch: Batch) -> None:
        """Note the loss of one step, ``batch`` being what to name when it is not finite."""
        self._pending.append((torch.isfinite(total.detach()), batch))
        if total.device.type == "cpu" or len(self._pending) >= 50:
            self.check()

    def check(self) -> None:
        """Ask the device about the steps noted so far.

        Raises:
            TrainingError: one was not finite.
        """
        for finite, batch in self._pending:
            if not bool(finite):
                culprits = _not_finite(batch)
                rows = _index(batch) if culprits is None else culprits
                shown = ", ".join(map(str, rows[:10].tolist()))
                of = "of its batch" if culprits is None else "with values that are not finite"
                raise TrainingError(
                    f"{self._what} is not finite in epoch {self._epoch + 1}",
                    where=f"rows (index) {of}: {shown}{', ...' if len(rows) > 10 else ''}",
                    fix=f"look at these rows for NaN or extreme values; else {self._fix}",
                )
        self._pending.clear()


def _not_finite(batch: Batch) -> Tensor | None:
    """Row ids of the rows that hold NaN or infinity; None when there are none."""
    index = _index(batch).cpu()
    bad = torch.zeros(len(index), dtype=torch.bool)
    for entry in batch.values():
        if entry.is_floating_point() and len(entry) == len(index):
            bad |= ~torch.isfinite(entry.cpu()).reshape(len(index), -1).all(1)
    return index[bad] if bool(bad.any()) else None


def _index(batch: Batch) -> Tensor:
    """Row ids, or places in the batch when it has none."""
    return batch["index"] if "index" in batch else torch.arange(len(next(iter(batch.values()))))
