"""Which rows make up each step: order, balance, and the unlabelled rows beside them, all functions of seed and
epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, eq=False)
class Steps:
    """Positions of each step's rows, cut from an order of all rows when their turn comes: 8 bytes a row.

    Args:
        order: positions, ``[N]`` int64.
        size: rows of a step; the last piece of ``order`` may have fewer.
        chosen: which pieces of ``order`` are steps, in their order, ``[S]`` int64.
        rank: of the process whose share of each step is meant.
        world: processes.
    """

    order: Tensor
    size: int
    chosen: Tensor
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[list[int]]:
        for start in (self.chosen * self.size).tolist():
            yield self.order[start : start + self.size][self.rank :: self.world].tolist()

    def of_process(self, rank: int, world: int) -> Steps:
        """The rows of each step that one of several processes takes: every ``world``-th."""
        return replace(self, rank=rank, world=world)


def step_positions(
    length: int,
    config: TrainConfig,
    seed: int,
    epoch: int,
    *,
    targets: Tensor | None = None,
    lengths: Sequence[int] | None = None,
) -> Steps:
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
    count = math.ceil(len(order) / config.batch_size)
    if count > 1 and (len(order) - 1) % config.batch_size == 0:
        count -= 1
    chosen = torch.arange(count) if lengths is None else torch.randperm(count, generator=generator)
    return Steps(order, config.batch_size, chosen)


def _by_length(order: Tensor, lengths: Tensor, pool: int) -> Tensor:
    """Positions in drawn ``order``, each ``pool`` of them sorted by length; rows of one length stay as they were."""
    pools = torch.split(order, pool)
    return torch.cat([each[torch.sort(lengths[each], stable=True).indices] for each in pools])


def unlabelled_positions(length: int, steps: int, per_step: int, seed: int, epoch: int) -> Steps:
    """Positions of unlabelled rows for each step: shuffled, gone through again when they run out."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch) ^ 0x5EED)
    rounds = max(1, math.ceil(steps * per_step / length))
    order = torch.cat([torch.randperm(length, generator=generator) for _ in range(rounds)])
    return Steps(order, per_step, torch.arange(steps))


def batches(split: Split, steps: Iterable[Sequence[int]], *, workers: int = 0) -> Iterator[Batch]:
    """The batches of the given positions, in order, made by processes of a loader where there are ``workers``."""
    if workers:
        loader: DataLoader[Batch] = DataLoader(split, batch_size=None, sampler=steps, num_workers=workers)
        yield from loader
        return
    # A loader draws the seed of its workers, so that the random numbers that follow are the same with and without.
    torch.empty((), dtype=torch.int64).random_()
    for positions in steps:
        yield split.batch(positions)
