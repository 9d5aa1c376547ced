"""Head for traded volume: a mean and a variance, against what was traded yesterday."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.heads import Gaussian
from stillhouse.types import Batch


class Volume(Gaussian):
    """The log of the shares traded over their mean of 20 days, with its uncertainty: ``[B, 2]``, mean and
    log-variance.

    Metrics: those of `stillhouse.heads.Gaussian`; ``rmse`` (primary) is in units of the logarithm.
    """

    def row_entries(self) -> tuple[str, ...]:
        """``yesterday``: the same of the day before."""
        return ("yesterday",)

    def references(self, rows: Batch) -> dict[str, Tensor]:
        """``yesterday``: as much as the day before. ``mean of 20 days``: as much as usual."""
        last = rows["yesterday"].reshape(-1, 1)
        spread = torch.full_like(last, 2.0 * float(torch.log(torch.tensor(self.data.target_std))))
        return {
            "yesterday": torch.cat((last, spread), dim=1),
            "mean of 20 days": torch.cat((torch.zeros_like(last), spread), dim=1),
        }
