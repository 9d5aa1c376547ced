"""A few rows of a split, for runs of seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stillhouse.types import Split, Splits, SubsetSplit


def few(split: Split, count: int) -> Split:
    """At most ``count`` rows in their order: spread over the split, and every class (or label) among them that occurs
    and for which there is room."""
    if len(split) <= count:
        return split
    row = split.row(0)
    spread = np.unique(np.linspace(0, len(split) - 1, count).round().astype(int))
    if "target" not in row or row["target"].ndim > 1:
        return SubsetSplit(split, spread.tolist())
    target = split.columns(["target"])["target"].to(torch.float64)
    values = target.reshape(len(target), -1).numpy()
    labels = np.unique(values[:, 0]) if values.shape[1] == 1 else None
    if labels is not None and len(labels) <= max(count // 2, 2):
        holders = [np.flatnonzero(values[:, 0] == label) for label in labels]
    elif values.shape[1] > 1 and set(np.unique(values)) <= {0.0, 1.0}:
        holders = [np.flatnonzero(column) for column in values.T]
    else:
        return SubsetSplit(split, spread.tolist())
    share = max(count // (2 * len(holders)), 1)
    chosen = {int(position) for rows in holders for position in rows[:share]}
    fill = [int(position) for position in spread if int(position) not in chosen]
    chosen |= set(fill[: max(count - len(chosen), 0)])
    return SubsetSplit(split, sorted(chosen)[: max(count, len(holders))])


def few_of_each(splits: Splits, train: int, rest: int) -> Splits:
    """The same dataset with few rows in every split."""
    return replace(
        splits,
        train=few(splits.train, train),
        val=few(splits.val, rest),
        test=few(splits.test, rest),
        unlabelled=None if splits.unlabelled is None else few(splits.unlabelled, train),
    )


def unpadded(in_batch: Tensor, row: Tensor) -> Tensor:
    """An entry of a row as a batch has it, without what a longer row of the batch has padded it with."""
    return in_batch[tuple(slice(size) for size in row.shape)]
