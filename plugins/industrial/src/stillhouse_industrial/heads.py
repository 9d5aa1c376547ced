"""Heads: remaining useful life, and which fault a process has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.errors import DataError, nearest
from stillhouse.heads import Multiclass
from stillhouse.heads.checks import judged, row_mean
from stillhouse.kinds import OutputKind
from stillhouse.types import Batch, DataInfo, Head, ReportFigure
from stillhouse_industrial import figures


def phm08(error: np.ndarray) -> float:
    """Score of the PHM 2008 challenge, summed over rows; lower is better.

    ``exp(-d / 13) - 1`` for early and ``exp(d / 10) - 1`` for late predictions, with
    ``d = predicted - true`` cycles (Saxena et al., PHM 2008, equation 11): a late prediction
    costs more. Huge errors give a huge but finite score.
    """
    exponent = np.where(error < 0, -error / 13.0, error / 10.0)
    return float(np.expm1(np.minimum(exponent, 500.0)).sum())


class RUL(Head):
    """Remaining useful life: one value, in the unit of the dataset's time (cycles).

    Predictions are clipped to [0, cap] before metrics and decoding, because labels are: a decoded value equal
    to the cap means "at least that". The loss sees them as they are.

    Metrics: ``rmse`` (primary), ``mae``, ``bias`` (mean of predicted minus true: positive is late), ``phm08``
        (see `phm08`), and ``rmse_last30``, over the rows whose true RUL is at most ``last``; left out when
        there are none.

    Args:
        data: gives the cap (``meta["cap"]``) and the spread of the targets.
        cap: largest RUL of a prediction; by default the dataset's.
        loss: hard loss: mean squared error, or Huber's loss, which grows linearly beyond ``delta``.
        delta: where Huber's loss becomes linear, in cycles.
        last: true RUL up to which ``rmse_last30`` counts a row.
    """

    kind = OutputKind.REGRESSION
    outputs = 1
    primary = "rmse"
    higher_is_better = False
    bounds = (0.0, math.inf)

    def __init__(
        self,
        data: DataInfo,
        *,
        cap: float | None = None,
        loss: Literal["mse", "huber"] = "mse",
        delta: float = 20.0,
        last: float = 30.0,
    ) -> None:
        self.cap = cap if cap is not None else data.meta.get("cap")
        self.loss, self.delta, self.last, self.unit = loss, delta, last, data.unit or "cycles"

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mean loss of ``[B, 1]`` against ``[B]`` in squared cycles, as the regression objectives measure, weighted by
        ``batch["weight"]`` where it is there."""
        value, target = prediction[:, 0].float(), batch["target"].float()
        reduction = "none" if "weight" in batch else "mean"
        if self.loss == "huber":  # twice Huber's loss is the squared error below delta
            loss = 2.0 * functional.huber_loss(value, target, delta=self.delta, reduction=reduction)
        else:
            loss = functional.mse_loss(value, target, reduction=reduction)
        return row_mean(loss, batch) if "weight" in batch else loss

    def clip(self, prediction: Tensor) -> np.ndarray:
        """Predictions ``[N, 1]`` as values ``[N]`` in [0, cap], float64."""
        clipped: np.ndarray = prediction[:, 0].double().clamp(0.0, self.cap).numpy()
        return clipped

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class."""
        judged(prediction, rows, head="rul")
        target = rows["target"].double().numpy()
        error = self.clip(prediction) - target
        found = {
            "rmse": float(np.sqrt(np.mean(error**2))),
            "mae": float(np.mean(np.abs(error))),
            "bias": float(np.mean(error)),
            "phm08": phm08(error),
        }
        late = target <= self.last
        if late.any():
            found["rmse_last30"] = float(np.sqrt(np.mean(error[late] ** 2)))
        return found

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``rul``: the prediction, clipped to [0, cap]."""
        return {"rul": self.clip(prediction).tolist()}

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Predicted against true RUL, and error by true RUL."""
        target = rows["target"].to(torch.float64).numpy()
        values = {name: self.clip(prediction) for name, prediction in predictions.items()}
        return [
            figures.predicted_against_true(values, target, self.unit),
            figures.error_by_true(values, target, self.unit),
        ]


class Faults(Multiclass):
    """Which fault a process has, if any: one class of several, one of which is normal operation.

    Metrics: ``balanced_accuracy`` (primary; mean recall of the classes that occur: the fault diagnosis rate averaged
        over classes), ``detection_rate`` (mean over faults of the share of their rows that are not called normal),
        ``false_alarm_rate`` (share of normal rows that are called a fault; left out without normal rows), and those of
        `stillhouse.heads.Multiclass`. ``accuracy`` follows the class that has most rows.

    Args:
        data: the dataset, with its class names.
        normal: name of the class of normal operation; by default what the dataset says (``meta["normal"]``).
        class_weights: "balanced" weighs each class by rows / (classes * rows of the class); none when left out.
        label_smoothing: probability mass spread evenly over all classes in the hard loss.

    Raises:
        DataError: no class is of that name, or as for `stillhouse.heads.Multiclass`.
    """

    primary = "balanced_accuracy"
    bounds = (0.0, 1.0)

    def __init__(
        self,
        data: DataInfo,
        *,
        normal: str | None = None,
        class_weights: Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(data, class_weights=class_weights, label_smoothing=label_smoothing)
        name = normal if normal is not None else data.meta.get("normal", self.classes[0])
        if name not in self.classes:
            raise DataError(
                f"normal operation is to be the class '{name}', which the dataset does not have",
                where="head 'faults', option normal",
                fix=nearest(name, self.classes),
            )
        self.normal = self.classes.index(name)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class."""
        found = super().evaluate(prediction, rows)
        target, choice = rows["target"].long(), prediction.argmax(dim=1)
        recalls, detected = [], []
        for label in torch.unique(target).tolist():
            chosen = choice[target == label]
            recalls.append(float((chosen == label).double().mean()))
            if label != self.normal:
                detected.append(float((chosen != self.normal).double().mean()))
        metrics = {"balanced_accuracy": float(np.mean(recalls))}
        if detected:
            metrics["detection_rate"] = float(np.mean(detected))
        if bool((target == self.normal).any()):
            metrics["false_alarm_rate"] = float((choice[target == self.normal] != self.normal).double().mean())
        return {**metrics, **found}
