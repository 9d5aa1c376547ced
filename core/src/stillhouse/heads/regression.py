"""Heads that predict numbers: values alone, or values with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.heads.checks import in_range, judged, row_mean, shaped
from stillhouse.kinds import OutputKind
from stillhouse.types import Batch, DataInfo, Head, ReportFigure
from stillhouse.units import output_layer

NORMAL_90 = 1.6448536269514722
"""Half the width of the central 90 % interval of a normal distribution, in standard deviations."""


def _errors(value: Tensor, target: Tensor) -> dict[str, float]:
    """``rmse``, ``mae`` over all values, and ``r2`` (mean over columns; left out where the target does not
    vary)."""
    value, target = value.double(), target.double()
    found = {
        "rmse": float((value - target).square().mean().sqrt()),
        "mae": float((value - target).abs().mean()),
    }
    varies = (target != target[:1]).any(dim=0)
    if len(target) >= 2 and bool(varies.any()):
        found["r2"] = float(r2_score(target[:, varies].cpu().numpy(), value[:, varies].cpu().numpy()))
    return found


def _columns(name: str, values: Tensor) -> dict[str, list[Any]]:
    if values.shape[1] == 1:
        return {name: values[:, 0].tolist()}
    return {f"{name}_{column}": values[:, column].tolist() for column in range(values.shape[1])}


class Regression(Head):
    """Values ``[B, D]`` in the target's units.

    The hard loss is in the squared units of the target, like the soft loss of `core/teacher-mse`, so that
    alpha weighs equals.

    Args:
        data: the dataset, with mean, standard deviation and unit of its target.
        values: numbers predicted for each row (D).
        loss: "mse", or "huber", which is linear beyond ``delta`` and so less moved by outliers.
        delta: where the Huber loss turns linear, in standard deviations of the training target.

    Raises:
        OptionError: values or delta is out of range.
    """

    kind = OutputKind.REGRESSION
    primary = "rmse"
    higher_is_better = False
    bounds = (0.0, math.inf)

    def __init__(
        self, data: DataInfo, *, values: int = 1, loss: Literal["mse", "huber"] = "mse", delta: float = 1.0
    ) -> None:
        self.data = data
        self.outputs = int(in_range("values", values, 1, float("inf"), head="regression"))
        self.loss = loss
        self.delta = in_range("delta", delta, 1e-6, float("inf"), head="regression") * (data.target_std or 1.0)

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mean over values, then over rows."""
        prediction = shaped(prediction, [self.outputs], head="regression")
        target = batch["target"].to(prediction).reshape(len(prediction), self.outputs)
        if self.loss == "huber":
            loss = F.huber_loss(prediction, target, reduction="none", delta=self.delta)
        else:
            loss = F.mse_loss(prediction, target, reduction="none")
        return row_mean(loss.mean(dim=1), batch)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``rmse`` and ``mae`` in the target's unit, ``r2`` (left out when the target does not vary).

        Raises:
            DataError: the split is empty, or a target is not finite.
            TrainingError: a prediction is not finite.
        """
        prediction = shaped(prediction, [self.outputs], head="regression")
        judged(prediction, rows, head="regression")
        return _errors(prediction, rows["target"].reshape(len(prediction), self.outputs))

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``prediction`` in the target's unit (``prediction_0``, ... when there are several values)."""
        return _columns("prediction", shaped(prediction, [self.outputs], head="regression"))

    def output_layer(self, width: int) -> nn.Module:
        """A linear layer whose output is in the target's units."""
        return output_layer(self.kind, width, self.outputs, self.data)

    def row_entries(self) -> Sequence[str]:
        """The entry with the latest known value, where ``DataInfo.meta["persistence"]`` names one."""
        entry = self.data.meta.get("persistence")
        return (str(entry),) if entry else ()

    def references(self, rows: Batch) -> dict[str, Tensor]:
        """``mean of the training target``, for one value and where `DataInfo` has statistics of the target;
        ``persistence``, where ``DataInfo.meta["persistence"]`` names the row entry ``[N]`` or ``[N, D]`` with the
        latest known value: nothing changes."""
        found, shape = {}, (len(rows["target"]), self.outputs)
        if self.outputs == 1 and (self.data.target_mean, self.data.target_std) != (0.0, 1.0):
            found["mean of the training target"] = torch.full(shape, float(self.data.target_mean))
        for entry in self.row_entries():
            if entry in rows:
                found["persistence"] = rows[entry].float().reshape(len(rows["target"]), -1).expand(shape).contiguous()
        return found

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Predicted against true, and the error by true value."""
        from stillhouse.heads import figures

        target = rows["target"].reshape(len(rows["target"]), -1)
        first = {name: values[:, 0] for name, values in predictions.items()}
        return figures.regression(first, target[:, 0], unit=self.data.unit)


class Gaussian(Head):
    """Values with their uncertainty: ``[B, 2 * D]``, means and then log-variances, in the target's units.

    Args:
        data: the dataset, with mean, standard deviation and unit of its target.
        values: numbers predicted for each row (D).

    Raises:
        OptionError: values is below one.
    """

    kind = OutputKind.GAUSSIAN
    primary = "rmse"
    higher_is_better = False
    bounds = (0.0, math.inf)

    def __init__(self, data: DataInfo, *, values: int = 1) -> None:
        self.data = data
        self.values = int(in_range("values", values, 1, float("inf"), head="gaussian"))
        self.outputs = 2 * self.values

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Negative log-likelihood of a normal distribution, mean over values, then over rows."""
        means, log_variances = shaped(prediction, [self.outputs], head="gaussian").chunk(2, dim=1)
        target = batch["target"].to(means).reshape(means.shape)
        loss = F.gaussian_nll_loss(means, target, log_variances.exp(), full=True, reduction="none")
        return row_mean(loss.mean(dim=1), batch)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``rmse``, ``mae``, ``r2`` of the means; ``nll``; ``coverage_90``: the share of targets inside the
        predicted central 90 % interval, 0.9 when the uncertainty is right.

        Raises:
            DataError: the split is empty, or a target is not finite.
            TrainingError: a prediction is not finite.
        """
        prediction = shaped(prediction, [self.outputs], head="gaussian")
        judged(prediction, rows, head="gaussian")
        means, log_variances = prediction.double().chunk(2, dim=1)
        target = rows["target"].double().reshape(means.shape)
        squared = (target - means) ** 2
        nll = 0.5 * (log_variances + squared * torch.exp(-log_variances) + math.log(2 * math.pi))
        inside = squared.sqrt() <= NORMAL_90 * torch.exp(0.5 * log_variances)
        return _errors(means, target) | {
            "nll": float(nll.mean()),
            "coverage_90": float(inside.double().mean()),
        }

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``prediction``, and ``low`` and ``high`` of the central 90 % interval, in the target's unit."""
        means, log_variances = shaped(prediction, [self.outputs], head="gaussian").chunk(2, dim=1)
        half = NORMAL_90 * torch.exp(0.5 * log_variances)
        return _columns("prediction", means) | _columns("low", means - half) | _columns("high", means + half)

    def output_layer(self, width: int) -> nn.Module:
        """A linear layer whose output is in the target's units."""
        return output_layer(self.kind, width, self.outputs, self.data)

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Predicted against true, and the error by true value."""
        from stillhouse.heads import figures

        target = rows["target"].reshape(len(rows["target"]), -1)
        first = {name: values[:, 0] for name, values in predictions.items()}
        return figures.regression(first, target[:, 0], unit=self.data.unit)
