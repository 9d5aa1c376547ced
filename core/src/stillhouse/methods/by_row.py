"""Losses row by row: what a batch of this row alone would have."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap

from stillhouse.training.loss import HardLoss, Term
from stillhouse.types import Batch


def row_losses(hard_loss: HardLoss, prediction: Tensor, batch: Batch) -> Tensor:
    """The loss of every row: that of a batch of this row alone.

    What a head divides a batch's loss by (class weights, valid tokens, ``weight``) cancels in it.

    Args:
        hard_loss: a head's ``hard_loss``.
        prediction: ``[B, ...]``.
        batch: the rows.

    Returns:
        ``[B]``.
    """

    def of_row(one: Tensor, row: Batch) -> Tensor:
        return hard_loss(one[None], {name: entry[None] for name, entry in row.items()})

    try:
        found: Tensor = vmap(of_row)(prediction, dict(batch))
        return found
    except RuntimeError:  # a head that looks at values, as to check them, cannot be vectorised
        rows = [{name: entry[row] for name, entry in batch.items()} for row in range(len(prediction))]
        return torch.stack([of_row(one, row) for one, row in zip(prediction, rows, strict=True)])


def soft_losses(term: Term, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The soft loss of every row: that of a batch of this row alone.

    Args:
        term: the soft term; its adapter is not applied.
        student: prediction or feature ``[B, ...]``.
        teacher: the teacher's.
        batch: the rows; those entries that the objective takes may be of the first rows only.

    Returns:
        ``[N]``, N the rows that have all entries which the objective takes.
    """
    extras = {name: batch[name] for name in term.extras if name in batch}
    rows = min([len(student), *(len(entry) for entry in extras.values())])
    extras = {name: entry[:rows] for name, entry in extras.items()}

    def of_row(one: Tensor, other: Tensor, row: Batch) -> Tensor:
        value: Tensor = term.objective(one[None], other[None], **{name: entry[None] for name, entry in row.items()})
        return value

    found: Tensor = vmap(of_row)(student[:rows], teacher[:rows], extras)
    return found
