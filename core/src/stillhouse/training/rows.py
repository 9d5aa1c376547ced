"""Which rows make up each step: order, balance, and the unlabelled rows beside them, all functions of seed and
epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from stillhouse.recipe.model import TrainConfig
from stillhouse.types import Batch, Split


def epoch_seed(seed: int, epoch: int) -> int:
    """One seed per epoch, so that a resumed run needs no saved generator state."""
    return (seed * 1_000_003 + epoch * 7_919 + 17) % 2**31


POOL = 16
"""Steps whose rows are sorted by length together: enough for little padding, few enough for steps that differ between
epochs."""


def step_positions(
    length: int,
    config: TrainConfig,
    seed: int,
    epoch: int,
    *,
    targets: Tensor | None = None,
    lengths: Sequence[int] | None = None,
) -> list[list[int]]:
    """Positions of each step's rows; a single row left over at the end is dropped, since normalisation layers need two.

    Args:
        length: number of rows.
        config: ``batch_size`` and ``balance`` are used.
        seed: the run's seed.
        epoch: the epoch, from 0.
        targets: class of each row, for ``balance``.
        lengths: length of each row, where they differ: rows of like lengths then make a step, and the order of the
            steps is drawn.
    """
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    if config.balance and targets is not None:
        classes = targets.flatten().to(torch.int64)
        weights = 1.0 / torch.bincount(classes).to(torch.float64)[classes]
        order = torch.multinomial(weights, length, replacement=True, generator=generator)
    else:
        order = torch.randperm(length, generator=generator)
    if lengths is not None:
        order = _by_length(order, torch.as_tensor(lengths), POOL * config.batch_size)
    steps: list[list[int]] = [chunk.tolist() for chunk in torch.split(order, config.batch_size)]
    if len(steps) > 1 and len(steps[-1]) == 1:
        steps.pop()
    if lengths is not None:
        steps = [steps[at] for at in torch.randperm(len(steps), generator=generator).tolist()]
    return steps


def _by_length(order: Tensor, lengths: Tensor, pool: int) -> Tensor:
    """Positions in drawn ``order``, each ``pool`` of them sorted by length; rows of one length stay as they were."""
    pools = torch.split(order, pool)
    return torch.cat([each[torch.sort(lengths[each], stable=True).indices] for each in pools])


def unlabelled_positions(length: int, steps: int, per_step: int, seed: int, epoch: int) -> list[list[int]]:
    """Positions of unlabelled rows for each step: shuffled, gone through again when they run out."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch) ^ 0x5EED)
    rounds = max(1, math.ceil(steps * per_step / length))
    order = torch.cat([torch.randperm(length, generator=generator) for _ in range(rounds)])
    return [chunk.tolist() for chunk in torch.split(order, per_step)[:steps]]


def batches(split: Split, steps: Sequence[Sequence[int]], *, workers: int = 0) -> Iterator[Batch]:
    """The batches of the given positions, in order."""
    loader: DataLoader[Batch] = DataLoader(split, batch_size=None, sampler=list(steps), num_workers=workers)
    # A generator, so that the loader draws its seed when the first batch is asked for: numbers of augmented rows depend
    # on that order.
    yield from loader
