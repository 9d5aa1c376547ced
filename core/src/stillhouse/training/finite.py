"""The watch over losses that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from stillhouse.errors import TrainingError
from stillhouse.forwarding import to_device
from stillhouse.types import Batch, Outputs


class FiniteGuard:
    """Stops at a loss or gradient that is not finite and names the rows; asks the device every 50 steps on an
    accelerator.

    Args:
        what: whose loss it is, e.g. ``"the loss of student, seed 0"``.
        epoch: counted from 0.
        fix: advice beside that on the rows.
        teacher: what the rows were distilled from; asked again about the rows of a step that failed.
    """

    def __init__(self, what: str, epoch: int, *, fix: str, teacher: Callable[[Batch], Outputs] | None = None) -> None:
        self._what, self._epoch, self._fix, self._teacher = what, epoch, fix, teacher
        self._pending: list[tuple[Tensor, Tensor | None, Batch]] = []

    def watch(self, total: Tensor, batch: Batch, *, gradients: Iterable[nn.Parameter] = ()) -> None:
        """Note one step, after its backward pass and before the optimiser's step, which a gradient that is not finite
        would make the end of the weights.

        Args:
            total: the loss.
            batch: what to name when it is not finite.
            gradients: the parameters that learn.
        """
        given = [parameter.grad for parameter in gradients if parameter.grad is not None]
        self._pending.append((total.detach(), _faults(given), batch))
        if total.device.type == "cpu" or len(self._pending) >= 50:
            self.check()

    def check(self) -> None:
        """Ask the device about the steps noted so far.

        Raises:
            TrainingError: one was not finite.
        """
        for total, faults, batch in self._pending:
            finite = math.isfinite(total.item())
            if finite and (faults is None or not faults.item()):
                continue
            what = self._what if not finite else f"the gradient of {self._what}"
            index = _index(batch).cpu()
            of, rows = self._culprits(batch, index, total.device)
            shown = ", ".join(map(str, rows[:10].tolist()))
            raise TrainingError(
                f"{what} is not finite in epoch {self._epoch + 1}",
                where=f"rows (index) {of}: {shown}{', ...' if len(rows) > 10 else ''}",
                fix=f"look at these rows for NaN or extreme values; else {self._fix}",
            )
        self._pending.clear()

    def _culprits(self, batch: Batch, index: Tensor, device: torch.device) -> tuple[str, Tensor]:
        """What is wrong with which rows; all rows of the batch when none stands out."""
        bad = _not_finite(batch.values(), len(index))
        if bool(bad.any()):
            return "with values that are not finite", index[bad]
        if self._teacher is not None:
            with torch.no_grad():
                outputs = self._teacher(to_device(batch, device))
            bad = _not_finite((outputs.prediction, *outputs.features.values()), len(index))
            if bool(bad.any()):
                return "of which the teacher's output is not finite", index[bad]
        return "of its batch", index


def _faults(gradients: list[Tensor]) -> Tensor | None:
    """A scalar that is not 0 where a value of the gradients is not finite, on their device; None without any."""
    if not gradients:
        return None
    device = gradients[0].device
    if all(each.device == device and each.dtype == torch.float32 and not each.is_sparse for each in gradients):
        # One operation, of torch's gradient scaler, for all of them; multiplied by 1 they stay what they are.
        found = torch.zeros((), device=device)
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, torch.ones((), device=device))
        return found
    # The largest magnitude, not a sum of squares: that of sound gradients may overflow.
    return ~torch.isfinite(nn.utils.get_total_norm(gradients, norm_type=torch.inf))


def _not_finite(entries: Iterable[Tensor], rows: int) -> Tensor:
    """Which of the rows hold NaN or infinity."""
    bad = torch.zeros(rows, dtype=torch.bool)
    for entry in entries:
        # Unlabelled rows come last and have no target.
        if entry.is_floating_point() and len(entry) <= rows:
            bad[: len(entry)] |= ~torch.isfinite(entry.cpu()).reshape(len(entry), -1).all(1)
    return bad


def _index(batch: Batch) -> Tensor:
    """Row ids, or places in the batch when it has none."""
    return batch["index"] if "index" in batch else torch.arange(len(next(iter(batch.values()))))
