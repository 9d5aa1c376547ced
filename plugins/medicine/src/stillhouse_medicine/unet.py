"""U-Net for teachers and students alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.errors import OptionError
from stillhouse.types import Task
from stillhouse_medicine.layers import Centre, Conv, Separable


class UNet(nn.Module):
    """Contracting and expanding path with skips, a class for each pixel; see `teachers.unet`.

    Modules to tap: ``bottom`` (``[B, width * 2 ** depth, H / 2 ** depth, W / 2 ** depth]``) and ``last``
    (``[B, width, H, W]``).
    """

    def __init__(self, task: Task, *, width: int, depth: int, separable: bool) -> None:
        super().__init__()
        channels, height, across = task.inputs["image"].shape
        if depth < 1 or height % 2**depth or across % 2**depth:
            raise OptionError(
                f"images of {height} x {across} pixels cannot be halved {depth} times",
                where="depth",
                fix="lower it, or set dataset.size to a multiple of 2 to the power of depth",
            )
        block = Separable if separable else Conv

        def pair(channels_in: int, channels_out: int) -> nn.Module:
            return nn.Sequential(block(channels_in, channels_out), block(channels_out, channels_out))

        wide = [width * 2**level for level in range(depth + 1)]
        self.centre = Centre()
        # A separable first layer would filter a grey image with a single kernel.
        self.down = nn.ModuleList(
            [nn.Sequential(Conv(channels, width), block(width, width))]
            + [pair(wide[level - 1], wide[level]) for level in range(1, depth)]
        )
        self.bottom = pair(wide[depth - 1], wide[depth])
        self.up = nn.ModuleList(pair(wide[level + 1] + wide[level], wide[level]) for level in reversed(range(depth)))
        self.last = nn.Identity()
        self.output = nn.Conv2d(width, task.outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``[B, outputs, H, W]`` for images ``[B, C, H, W]``."""
        state, skips = self.centre(image), []
        for level in self.down:
            state = level(state)
            skips.append(state)
            state = functional.max_pool2d(state, 2)
        state = self.bottom(state)
        for level, skip in zip(self.up, reversed(skips), strict=True):
            wider = functional.interpolate(state, scale_factor=2.0, mode="nearest")
            state = level(torch.cat([wider, skip], dim=1))
        return self.output(self.last(state))
