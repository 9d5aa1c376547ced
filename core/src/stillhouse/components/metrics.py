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


def mcc() -> Callable[[Tensor, Batch], float]:
    """Matthews correlation coefficient of the most probable class (of yes at a probability of one half): 0 for any
    answer that does not depend on the row, 1 for right answers; 0 where all answers or all labels are the same.

    Source: Matthews (1975); for several classes Gorodkin (2004).

    Returns:
        ``metric(prediction, rows) -> float``, from logits ``[N, C]``, or ``[N, 1]`` for binary, and ``rows["target"]``.
    """

    def metric(prediction: Tensor, rows: Batch) -> float:
        from sklearn.metrics import matthews_corrcoef

        judged(prediction, rows, head="mcc")
        chosen, true = _choice(prediction), rows["target"].reshape(-1).long()
        if min(len(set(each.tolist())) for each in (chosen, true)) < 2:
            return 0.0
        return float(matthews_corrcoef(true.numpy(), chosen.numpy()))

    return metric


def f1(*, label: int = 1) -> Callable[[Tensor, Batch], float]:
    """F1 of one class: the harmonic mean of its precision and its recall; 0 where it is never found.

    Args:
        label: position of the class; 1 is "yes", or the second of two classes.

    Returns:
        ``metric(prediction, rows) -> float``, as for `mcc`.

    Raises:
        OptionError: label is negative.
    """
    if label < 0:
        raise OptionError(f"label is {label}", where="metric 'f1'", fix="the position of a class, from 0 upwards")

    def metric(prediction: Tensor, rows: Batch) -> float:
        judged(prediction, rows, head="f1")
        chosen, true = _choice(prediction) == label, rows["target"].reshape(-1).long() == label
        both = int((chosen & true).sum())
        return 2 * both / max(int(chosen.sum()) + int(true.sum()), 1)

    return metric


def _choice(prediction: Tensor) -> Tensor:
    """The most probable class of each row ``[N]``."""
    return (prediction[:, 0] > 0).long() if prediction.shape[1] == 1 else prediction.argmax(dim=1)
