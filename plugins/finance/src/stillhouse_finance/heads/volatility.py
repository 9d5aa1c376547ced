"""Head for volatility: quantiles of the change ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import OptionError
from stillhouse.heads.checks import judged, row_mean, shaped
from stillhouse.kinds import OutputKind
from stillhouse.types import Batch, DataInfo, Head, ReportFigure
from stillhouse_finance import figures

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def pinball(prediction: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Quantile loss of each row and level ``[N, Q]``: ``max(q * e, (q - 1) * e)`` with ``e = target - prediction``
    (Koenker and Bassett 1978); smallest in the mean at the quantile ``q``.

    Args:
        prediction: ``[N, Q]``.
        target: ``[N]``.
        levels: ``[Q]``, in (0, 1).
    """
    error = target.reshape(-1, 1) - prediction
    return torch.maximum(levels * error, (levels - 1) * error)


class Volatility(Head):
    """Quantiles of the log change of an index over the days ahead; ``[B, quantiles]``, judged in points of the index.

    The hard loss is the quantile (pinball) loss of the log change, mean over quantiles. Quantiles that cross are sorted
    before metrics and decoding (Chernozhukov, Fernandez-Val and Galichon 2010); the loss sees them as they are.

    Metrics, in points: ``pinball`` (primary; mean over quantiles), ``rmse`` and ``mae`` of the median, ``coverage``
        (the share of days between the lowest and the highest quantile).

    Args:
        data: spread of the training targets, for the references.
        quantiles: levels, increasing, 0.5 among them.

    Raises:
        OptionError: the levels do not increase, leave (0, 1), or lack 0.5.
    """

    kind = OutputKind.REGRESSION
    primary = "pinball"
    bounds = (0.0, math.inf)
    higher_is_better = False

    def __init__(self, data: DataInfo, *, quantiles: tuple[float, ...] = QUANTILES) -> None:
        given = list(quantiles)
        if given != sorted(set(given)) or not all(0 < each < 1 for each in given) or 0.5 not in given:
            raise OptionError(
                f"quantiles is {given}", where="head 'volatility'", fix="increasing levels, e.g. [0.05, 0.5, 0.95]"
            )
        self.levels = torch.tensor(given, dtype=torch.float64)
        self.outputs, self.median, self.unit = len(given), given.index(0.5), data.unit or "points"
        self.percentiles = data.meta.get("target_percentiles")

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mean over quantiles, then over rows."""
        prediction = shaped(prediction, [self.outputs], head="volatility")
        loss = pinball(prediction, batch["target"].to(prediction), self.levels.to(prediction))
        return row_mean(loss.mean(dim=1), batch)

    def row_entries(self) -> tuple[str, ...]:
        """``close``, the index of the day from which the prediction looks ahead."""
        return ("close",)

    def points(self, change: Tensor, rows: Batch) -> Tensor:
        """Log changes ``[N, ...]`` as points of the index, float64."""
        close = rows["close"].double().reshape(-1, *[1] * (change.ndim - 1))
        return close * change.double().exp()

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class.

        Raises:
            DataError: the split is empty, or a target is not finite.
            TrainingError: a prediction is not finite.
        """
        prediction = shaped(prediction, [self.outputs], head="volatility")
        judged(prediction, rows, head="volatility")
        value = self.points(prediction.sort(dim=1).values, rows)
        target = self.points(rows["target"].reshape(-1), rows)
        error = value[:, self.median] - target
        inside = (target >= value[:, 0]) & (target <= value[:, -1])
        return {
            "pinball": float(pinball(value, target, self.levels).mean()),
            "rmse": float(error.square().mean().sqrt()),
            "mae": float(error.abs().mean()),
            "coverage": float(inside.double().mean()),
        }

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``change_q05``, ...: quantiles of the change ahead, as a share of the present value (0.1 is 10 % up)."""
        change = shaped(prediction, [self.outputs], head="volatility").sort(dim=1).values.double().expm1()
        return {f"change_q{100 * level:02.0f}": change[:, i].tolist() for i, level in enumerate(self.levels.tolist())}

    def references(self, rows: Batch) -> dict[str, Tensor]:
        """``persistence``: nothing changes. ``persistence with past quantiles``: the changes of the training years."""
        same = torch.zeros(len(rows["target"]), self.outputs)
        found = {"persistence": same}
        if self.percentiles is not None:
            past = np.interp(100 * self.levels.numpy(), np.arange(101), self.percentiles)
            found["persistence with past quantiles"] = same + torch.from_numpy(past).float()
        return found

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """How often each quantile is kept, and the error by the level of the index."""
        target = self.points(rows["target"].reshape(-1), rows)
        values = {name: self.points(each.sort(dim=1).values, rows).numpy() for name, each in predictions.items()}
        return [
            figures.calibration(values, target.numpy(), self.levels.numpy()),
            figures.error_by_level(
                {name: each[:, self.median] for name, each in values.items()},
                target.numpy(),
                rows["close"].double().numpy(),
                self.unit,
            ),
        ]
