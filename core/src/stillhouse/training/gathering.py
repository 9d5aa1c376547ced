"""Rows of all processes as one batch, for losses that compare rows with each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def processes() -> int:
    """Processes that train side by side."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gathered(rows: Tensor, labelled: int) -> Tensor:
    """The rows of all processes, in the order of the whole batch, of which each process has every n-th row.

    The gradient flows to this process's rows only, times the number of processes W. Each process computes the same loss
    L of the whole batch, and ``DistributedDataParallel`` takes the mean of their gradients, so that what is left is

        1/W * sum over processes p of W * dL/dz_p * dz_p/dw = dL/dw,

    the gradient of the loss of the whole batch, as one process would have it.

    Args:
        rows: of this process ``[B, ...]``; all but B must be the same everywhere.
        labelled: how many of them come first; those of all processes come first in the result, too.

    Returns:
        ``[sum of B, ...]``.

    Raises:
        ValueError: the shape of a row is another one in another process.
    """
    own = torch.tensor([labelled, len(rows) - labelled, *rows.shape[1:]], device=rows.device)
    told = [torch.empty_like(own) for _ in range(processes())]
    distributed.all_gather(told, own)
    sizes = torch.stack(told)
    if not torch.equal(sizes[:, 2:], own[2:].expand(len(told), -1)):
        raise ValueError("rows have other shapes in other processes, and cannot be gathered")
    parts = [_interleaved(part, sizes[:, at]) for at, part in enumerate((rows[:labelled], rows[labelled:]))]
    return torch.cat(parts)


def _interleaved(rows: Tensor, sizes: Tensor) -> Tensor:
    """First rows of all processes, then second ones, and so on."""
    longest, rank, world = int(sizes.max()), distributed.get_rank(), len(sizes)
    scaled: Tensor = _Times.apply(rows, world)
    if longest == 0:
        return scaled
    padded = rows.detach().new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    sent = padded.to(torch.uint8) if rows.dtype is torch.bool else padded
    received = [torch.empty_like(sent) for _ in range(world)]
    distributed.all_gather(received, sent)
    others = [each.to(rows.dtype) for each in received]
    others[rank] = torch.cat([scaled, padded[len(rows) :]])
    there = torch.arange(longest, device=rows.device)[:, None] < sizes[None, :]
    return torch.stack(others, dim=1).flatten(0, 1)[there.flatten()]


class _Times(torch.autograd.Function):
    """The input, with its gradient times a number."""

    @staticmethod
    def forward(context: Any, values: Tensor, factor: int) -> Tensor:
        context.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * context.factor, None
