"""From a network's standardised output to the target's own units."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from stillhouse.kinds import OutputKind
from stillhouse.types import DataInfo


class ToUnits(nn.Module):
    """Fixed affine map of a regression output into the target's units, so that a network starts at the mean
    of the training target and its weights need not grow to the size of the unit.

    Args:
        data: mean and standard deviation of the training target.
        gaussian: the input holds means, then log-variances (`OutputKind.GAUSSIAN`).

    Shapes: ``[B, D]`` to ``[B, D]``; with ``gaussian``, ``[B, 2 * D]`` to ``[B, 2 * D]``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, data: DataInfo, *, gaussian: bool = False) -> None:
        super().__init__()
        usable = math.isfinite(data.target_std) and data.target_std > 0
        self.gaussian = gaussian
        self.register_buffer("mean", torch.tensor(float(data.target_mean)))
        self.register_buffer("std", torch.tensor(float(data.target_std) if usable else 1.0))

    def forward(self, standardised: Tensor) -> Tensor:
        """``mean + std * standardised``; a log-variance shifts by ``2 * log(std)``."""
        if not self.gaussian:
            return self.mean + self.std * standardised
        means, log_variances = standardised.chunk(2, dim=1)
        return torch.cat([self.mean + self.std * means, log_variances + 2 * self.std.log()], dim=1)


def output_layer(kind: OutputKind, width: int, outputs: int, data: DataInfo) -> nn.Module:
    """A linear layer from ``width`` features to ``outputs``, in the target's units for the regression
    kinds."""
    linear = nn.Linear(width, outputs)
    if kind in (OutputKind.REGRESSION, OutputKind.GAUSSIAN):
        return nn.Sequential(linear, ToUnits(data, gaussian=kind is OutputKind.GAUSSIAN))
    return cast(nn.Module, linear)
