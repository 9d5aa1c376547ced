"""Head for forecasts of many hours: squared and absolute error, against the last value and the last day."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stillhouse.heads import Regression
from stillhouse.types import Batch, DataInfo


class Forecast(Regression):
    """The change from the last known value at each hour ahead, ``[B, ahead]``, in standard deviations.

    Metrics: ``mse`` (primary) and ``mae``, means over rows and hours.

    Args:
        data: the dataset, with the hours ahead (``meta["ahead"]``).
    """

    primary = "mse"
    bounds = (0.0, math.inf)

    def __init__(self, data: DataInfo) -> None:
        super().__init__(data, values=data.meta.get("ahead", 1))

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class, and `Regression.evaluate` for errors."""
        found = super().evaluate(prediction, rows)
        return {"mse": found["rmse"] ** 2, "mae": found["mae"]}

    def row_entries(self) -> tuple[str, ...]:
        """``yesterday``: the last day before the forecast, less its last value."""
        return ("yesterday",)

    def references(self, rows: Batch) -> dict[str, Tensor]:
        """``persistence``: nothing changes. ``seasonal naive``: each hour as the last time it struck."""
        day = rows["yesterday"]
        repeats = -(-self.outputs // day.shape[1])
        return {
            "persistence": torch.zeros(len(day), self.outputs),
            "seasonal naive": day.repeat(1, repeats)[:, : self.outputs],
        }
