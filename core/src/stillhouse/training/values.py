"""What the steps of an epoch were worth: the mean of the loss and of each of its terms."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.training.loss import TermValues

KEPT = 64
"""Steps whose values wait on their device: adding them there would be an operation for each value of each step."""


class StepValues:
    """Sums over the steps of an epoch, in the order and the precision of the values."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        self._sums: dict[tuple[str, str], np.ndarray] = {}
        self._steps = self._waiting = 0

    def add(self, total: Tensor, terms: TermValues) -> None:
        """Note one step.

        Args:
            total: the loss, a scalar.
            terms: detached scalars by name and part.
        """
        self._pending["", "loss"].append(total.detach())
        for name, parts in terms.items():
            for part, value in parts.items():
                self._pending[name, part].append(value)
        self._steps += 1
        self._waiting += 1
        if self._waiting == KEPT:
            self._sum_up()

    def _sum_up(self) -> None:
        for key, waiting in self._pending.items():
            values = torch.stack(waiting).cpu()
            # NumPy has no bfloat16. One after the other, as if each had been added in its step.
            numbers = values.to(torch.promote_types(values.dtype, torch.float32)).numpy()
            before = [self._sums[key]] if key in self._sums else []
            self._sums[key] = np.add.accumulate(np.concatenate([*before, numbers]))[-1:]
        self._pending.clear()
        self._waiting = 0

    def means(self) -> dict[str, Any]:
        """``{"loss": mean, "terms": {name: {"raw": mean, "weighted": mean}}}``; the loss of no step is NaN."""
        self._sum_up()
        means = {key: float(value[0]) / self._steps for key, value in self._sums.items()}
        names = dict.fromkeys(name for name, _ in means if name)
        return {
            "loss": means.get(("", "loss"), float("nan")),
            "terms": {name: {part: means[name, part] for part in ("raw", "weighted")} for name in names},
        }
