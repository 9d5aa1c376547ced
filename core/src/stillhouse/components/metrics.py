"""Metrics of a whole split that core offers beside those of its heads."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from stillhouse.errors import OptionError
from stillhouse.heads.checks import judged
from stillhouse.heads.measures import BINS, binary_ece, multiclass_ece
from stillhouse.types import Batch


def ece(*, bins: int = BINS) -> Callable[[Tensor, Batch], float]:
    """Expected calibration error, for multiclass and binary predictions.

    Args:
        bins: number of equally wide bins of confidence.

    Returns:
        ``metric(prediction, rows)`` from logits ``[N, C]``, or ``[N, 1]`` for binary, and ``rows["target"]``
        ``[N]``.

    Raises:
        OptionError: bins is below one. The metric itself refuses an empty split and predictions that are not finite.
    """
    if bins < 1:
        raise OptionError(f"bins is {bins}", where="metric 'ece'", fix="a whole number from 1 upwards; 15 is usual")

    def metric(prediction: Tensor, rows: Batch) -> float:
        judged(prediction, rows, head="ece")
        target = rows["target"].long()
        if prediction.shape[1] == 1:
            return binary_ece(prediction[:, 0].double().sigmoid(), target.reshape(-1), bins)
        return multiclass_ece(prediction.double().softmax(dim=1), target, bins)

    return metric
