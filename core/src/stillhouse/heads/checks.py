"""What heads check before they compute a loss or a metric, and the means they share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.errors import DataError, IncompatibleError, OptionError, TrainingError
from stillhouse.types import Batch, DataInfo


def class_names(data: DataInfo, *, head: str, least: int = 2) -> tuple[str, ...]:
    """The declared class names.

    Raises:
        DataError: fewer than ``least`` are declared.
    """
    names = data.classes or ()
    if len(names) < least:
        raise DataError(
            f"the dataset declares {len(names)} classes, and head '{head}' needs at least {least}",
            where="DataInfo.classes",
            fix="declare the label names in the dataset, or choose a head of the right kind",
        )
    return names


def counts(data: DataInfo, *, head: str, classes: int) -> Tensor:
    """Training rows per class ``[C]``, for balanced weights.

    Raises:
        DataError: the dataset does not count them, or counts another number of classes.
    """
    if data.class_counts is None or len(data.class_counts) != classes:
        raise DataError(
            f"head '{head}' balances {classes} classes by their counts, which the dataset does not give",
            where="DataInfo.class_counts",
            fix="give class_counts in the dataset, or leave the balancing option out",
        )
    # A class without training rows gets the weight of a class with one, so that no weight is infinite.
    return torch.tensor(data.class_counts, dtype=torch.float32).clamp_min(1.0)


def log_shares(data: DataInfo, classes: int, rows: int) -> Tensor | None:
    """Logarithms of the classes' shares of the training rows, the same for each row ``[rows, C]``; None where the
    dataset does not count them. A class without training rows counts as one row."""
    if data.class_counts is None or len(data.class_counts) != classes:
        return None
    counted = torch.tensor(data.class_counts, dtype=torch.float32).clamp_min(1.0)
    return (counted / counted.sum()).log().repeat(rows, 1)


def in_range(name: str, value: float, low: float, high: float, *, head: str) -> float:
    """``value`` when it is in [low, high).

    Raises:
        OptionError: it is not.
    """
    if not low <= value < high:
        raise OptionError(f"{name} is {value}", where=f"head '{head}'", fix=f"a number from {low:g} to below {high:g}")
    return value


def shaped(prediction: Tensor, trailing: Sequence[int], *, head: str) -> Tensor:
    """``prediction`` in at least float32 when its shape is ``[B, *trailing]`` (-1 is any length).

    Raises:
        IncompatibleError: it has another shape.
    """
    fits = prediction.ndim == 1 + len(trailing) and all(
        wanted in (-1, got) for wanted, got in zip(trailing, prediction.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join(["B", *("*" if size == -1 else str(size) for size in trailing)])
        raise IncompatibleError(
            f"the model returned shape {list(prediction.shape)}, and head '{head}' needs [{wanted}]",
            fix="make the model's output as wide as task.outputs",
        )
    return prediction if prediction.dtype == torch.float64 else prediction.float()


def judged(prediction: Tensor, rows: Batch, *, head: str) -> None:
    """Refuse what no metric can be computed from.

    Raises:
        DataError: the split is empty, or a target is not finite.
        TrainingError: a prediction is not finite.
    """
    target = rows["target"]
    if len(prediction) == 0 or len(target) == 0:
        raise DataError(
            "the split has no rows",
            where=f"metrics of head '{head}'",
            fix="choose splits that leave rows in each",
        )
    if len(prediction) != len(target):
        raise IncompatibleError(
            f"{len(prediction)} predictions for {len(target)} rows",
            where=f"metrics of head '{head}'",
            fix="return one prediction for each row, in the order of the rows",
        )
    for tensor, error, what, fix in (
        (
            prediction,
            TrainingError,
            "predictions",
            "lower the learning rate; look for extreme inputs",
        ),
        (target, DataError, "targets", "remove or repair these rows in the dataset"),
    ):
        finite = torch.isfinite(tensor.reshape(len(tensor), -1)).all(dim=1)
        if not bool(finite.all()):
            bad = (~finite).nonzero().flatten()
            ids = rows.get("index", torch.arange(len(target)))[bad[:5]].tolist()
            raise error(
                f"{len(bad)} of {len(finite)} {what} are not finite",
                where=f"head '{head}', rows with index {ids}",
                fix=fix,
            )


def labels_in_range(target: Tensor, classes: int, *, head: str, ignore: int | None = None) -> Tensor:
    """Integer ``target`` when all its values are in [0, classes), ``ignore`` aside.

    Raises:
        DataError: one is outside.
    """
    seen = target if ignore is None else target[target != ignore]
    if seen.numel() and (int(seen.min()) < 0 or int(seen.max()) >= classes):
        raise DataError(
            f"labels run from {int(seen.min())} to {int(seen.max())}, and {classes} classes are declared",
            where=f"head '{head}'",
            fix=f"labels must be integers from 0 to {classes - 1}",
        )
    return target


def row_mean(per_row: Tensor, batch: Batch, norm: Tensor | None = None) -> Tensor:
    """Mean of a loss ``[B]`` over rows, weighted by ``batch["weight"]`` ``[B]`` when it is there.

    Args:
        per_row: loss of each row.
        batch: may hold ``weight``.
        norm: what each row counts for in the denominator (class weights); one when None.
    """
    weight = batch.get("weight")
    if weight is None and norm is None:
        return per_row.mean()
    share = torch.ones_like(per_row) if norm is None else norm.to(per_row)
    if weight is not None:
        weight = weight.to(per_row).reshape(-1)
        per_row, share = per_row * weight, share * weight
    # A batch of zero weights has a zero loss, not 0 / 0.
    return per_row.sum() / share.sum().clamp_min(torch.finfo(per_row.dtype).tiny)
