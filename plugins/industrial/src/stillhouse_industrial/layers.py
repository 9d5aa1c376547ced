"""Small parts that teachers and students share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stillhouse.types import DataInfo


class TargetUnits(nn.Module):
    """From a standardised value to the target's unit: ``mean + std * value``, of the training targets.

    A network then learns values near 0 and 1 while everyone outside sees cycles; its output begins at the
    mean. Of classes, whose mean is 0 and spread 1 by definition of `DataInfo`, it changes nothing.
    """

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(float(info.target_mean)))
        self.register_buffer("std", torch.tensor(float(info.target_std)))

    def forward(self, value: Tensor) -> Tensor:
        """See the class; any shape."""
        return self.mean + self.std * value


def sinusoids(length: int, width: int) -> Tensor:
    """Position codes ``[length, width]`` (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    codes = torch.zeros(length, width)
    codes[:, 0::2] = torch.sin(position * rates)
    codes[:, 1::2] = torch.cos(position * rates)[:, : width // 2]
    return codes
