"""Parts that teachers and students share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Centre(nn.Module):
    """Pixels from [0, 1] to about [-2, 2], the same for every channel."""

    def forward(self, image: Tensor) -> Tensor:
        """See the class; any shape."""
        return (image - 0.5) * 4


class Conv(nn.Sequential):
    """A 3x3 convolution with batch normalisation and ReLU; ``[B, C, H, W] -> [B, width, H / stride, W / stride]``."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class Separable(nn.Sequential):
    """A depthwise 3x3 and a pointwise convolution, each with batch normalisation; shapes as `Conv`."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); shapes as `Conv`."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Conv(channels, width, stride), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return torch.relu(self.body(image) + self.shortcut(image))


def residual_stages(channels: int, width: int, blocks: int, stages: int) -> nn.Sequential:
    """A stem of stride 2, then ``stages`` of ``blocks`` residual blocks; each stage after the first halves the sides
    and doubles the width. Its output is ``width * 2 ** (stages - 1)`` wide."""
    layers: list[nn.Module] = [Centre(), Conv(channels, width, 2)]
    for stage in range(stages):
        wide = width * 2**stage
        layers += [
            Residual(wide if block or not stage else wide // 2, wide, 2 if stage and not block else 1)
            for block in range(blocks)
        ]
    return nn.Sequential(*layers)


class WordEncoder(nn.Module):
    """Word vectors, mixed with their neighbours by convolutions of widths 1 and 3, the maximum over the words.

    ``[B, L] int64 -> [B, 2 * width]``; number 0 is padding and counts for nothing.
    """

    def __init__(self, words: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.one = nn.Conv1d(width, width, 1)
        self.three = nn.Conv1d(width, width, 3, padding=1)

    def start_from(self, vectors: Tensor) -> None:
        """Take ``vectors`` ``[words - 2, width]`` as those of the words that are known; they learn on."""
        with torch.no_grad():
            self.embedding.weight[2:] = vectors

    def forward(self, question: Tensor) -> Tensor:
        """See the class."""
        present = (question != 0).unsqueeze(1)
        vectors = self.dropout(self.embedding(question)).transpose(1, 2)
        mixed = torch.relu(torch.cat([self.one(vectors), self.three(vectors)], dim=1))
        # ReLU leaves nothing below zero, so that zeros at padding never win.
        return (mixed * present).amax(dim=-1)


def padding_of(numbers: Tensor, pad: int) -> Tensor:
    """Which positions ``[B, L]`` (bool) are padding; the first never is, so that attention has something to see."""
    padding = numbers == pad
    return torch.cat([torch.zeros_like(padding[:, :1]), padding[:, 1:]], dim=1)
