"""Adapters: small modules that bring a student's feature to the shape of the teacher's, chosen from the two
shapes.

They are trained with the student and never saved with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.objectives.functional import averaged

Layout = Literal["tokens", "channels"]


def make_adapter(student_shape: Sequence[int], teacher_shape: Sequence[int], *, layout: Layout = "tokens") -> nn.Module:
    """A module from ``[B, *student_shape]`` to ``[B, *teacher_shape]``.

    ===================  ===================  ====================================================
    student              teacher              adapter
    ===================  ===================  ====================================================
    equal                equal                identity, without parameters
    ``[D]``              ``[D']``             linear
    ``[T, D]``           ``[T', D']``         linear over the last dimension, T resized
    ``[C, T]``           ``[C', T']``         1x1 convolution, T resized (``layout="channels"``)
    ``[C, H, W]``        ``[C', H', W']``     1x1 convolution, positions resized (volumes too)
    ``[N, D]``           ``[C, H, W]``        tokens on a grid (class token dropped), then as maps
    ``[C, H, W]``        ``[N, D]``           as maps; a class token gets the mean of the others
    any of these         ``[D]``              mean over positions, then linear
    ===================  ===================  ====================================================

    A resize averages where positions get fewer and interpolates linearly where they get more. Tokens are a
    grid of H x W when their number is H * W of the other shape, or a square; and a class token, which comes
    first, followed by such a grid when their number less one is.

    Args:
        student_shape: shape of the student's feature without the batch dimension.
        teacher_shape: shape of the teacher's feature without the batch dimension.
        layout: what two dimensions mean: ``"tokens"`` is ``[T, D]``, ``"channels"`` is ``[C, T]``.

    Raises:
        ValueError: no adapter leads from one shape to the other; the text has both.
    """
    student, teacher = tuple(student_shape), tuple(teacher_shape)
    if layout not in ("tokens", "channels"):
        raise ValueError(f"layout must be 'tokens' or 'channels', not {layout!r}")
    if not student or not teacher or min(student + teacher) < 1:
        raise ValueError(f"no adapter from {student} to {teacher}: sizes must be known and at least 1")
    if student == teacher:
        return nn.Identity()
    ranks = (len(student), len(teacher))
    tokens = layout == "tokens"
    if ranks == (1, 1):
        return nn.Linear(student[0], teacher[0])
    if ranks[1] == 1 and ranks[0] <= 4:
        last = tokens and ranks[0] == 2
        return Pooled(channels_last=last, width=student[-1 if last else 0], out=teacher[0])
    if ranks == (2, 2) and tokens:
        return Tokens(student, teacher)
    if ranks in ((2, 2), (3, 3), (4, 4)):
        return Maps(student, teacher)
    if ranks == (2, 3) and tokens:
        return TokensToMap(student, teacher)
    if ranks == (3, 2) and tokens:
        return MapToTokens(student, teacher)
    raise ValueError(f"no adapter from {student} to {teacher}" + ("" if tokens else f" with layout '{layout}'"))


class Maps(nn.Module):
    """``[B, C, *positions]`` to ``[B, C', *positions']``: 1x1 convolution and resize."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(student) - 2]
        same = student[0] == teacher[0]
        self.project = nn.Identity() if same else convolution(student[0], teacher[0], kernel_size=1)
        self.before, self.size = tuple(student[1:]), tuple(teacher[1:])

    def forward(self, features: Tensor) -> Tensor:
        """Features of the teacher's shape."""
        projected: Tensor = self.project(features)
        # Sizes that were equal when the adapter was made are equal in every batch, though lengths may vary.
        return projected if self.before == self.size else resized(projected, self.size)


class Tokens(nn.Module):
    """``[B, T, D]`` to ``[B, T', D']``: linear over the last dimension, and resize."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        same = student[1] == teacher[1]
        self.project = nn.Identity() if same else nn.Linear(student[1], teacher[1])
        self.before, self.size = student[0], teacher[0]

    def forward(self, features: Tensor) -> Tensor:
        """Features of the teacher's shape."""
        projected: Tensor = self.project(features)
        if self.before == self.size:
            return projected
        return resized(projected.transpose(1, 2), (self.size,)).transpose(1, 2)


class TokensToMap(nn.Module):
    """``[B, N, D]`` to ``[B, C, H, W]``: tokens on a grid, 1x1 convolution and resize."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        self.skip, self.grid = token_grid(student, teacher, tokens=student[0], near=teacher[1:])
        self.maps = Maps((student[1], *self.grid), teacher)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the teacher's shape."""
        tokens = features[:, self.skip :].transpose(1, 2)
        grid = tokens.reshape(*tokens.shape[:2], *self.grid)
        adapted: Tensor = self.maps(grid)
        return adapted


class MapToTokens(nn.Module):
    """``[B, C, H, W]`` to ``[B, N, D]``: 1x1 convolution, resize to the tokens' grid, class token from the
    mean."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        self.skip, grid = token_grid(student, teacher, tokens=teacher[0], near=student[1:])
        self.maps = Maps(student, (teacher[1], *grid))

    def forward(self, features: Tensor) -> Tensor:
        """Features of the teacher's shape."""
        tokens = self.maps(features).flatten(2).transpose(1, 2)
        return torch.cat((tokens.mean(1, keepdim=True), tokens), dim=1) if self.skip else tokens


class Pooled(nn.Module):
    """``[B, *positions, D]`` or ``[B, C, *positions]`` to ``[B, D']``: mean over positions, then linear."""

    def __init__(self, *, channels_last: bool, width: int, out: int) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.project = nn.Identity() if width == out else nn.Linear(width, out)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the teacher's shape."""
        pooled = features.mean(1) if self.channels_last else features.flatten(2).mean(2)
        projected: Tensor = self.project(pooled)
        return projected


def token_grid(
    student: Sequence[int], teacher: Sequence[int], *, tokens: int, near: Sequence[int]
) -> tuple[int, tuple[int, int]]:
    """How many class tokens come first (0 or 1), and height and width of the grid of the others.

    Raises:
        ValueError: the ``tokens`` are neither a grid like ``near`` nor a square, with or without a class
            token.
    """
    for grid in ((near[0], near[1]), None):
        for skip in (0, 1):
            side = math.isqrt(tokens - skip)
            height, width = grid or (side, side)
            if height * width == tokens - skip and height > 0:
                return skip, (height, width)
    raise ValueError(
        f"no adapter from {tuple(student)} to {tuple(teacher)}: "
        f"{tokens} tokens are not a grid, with or without a class token"
    )


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """``[B, C, *positions]`` at ``size``: averaged where that is smaller, linearly interpolated where it is
    larger."""
    fewer = [min(now, wanted) for now, wanted in zip(maps.shape[2:], size, strict=True)]
    maps = averaged(maps, fewer)
    if fewer == list(size):
        return maps
    return F.interpolate(maps, size=list(size), mode=("linear", "bilinear", "trilinear")[len(size) - 1])
