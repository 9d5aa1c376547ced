"""Output kinds: what a prediction means, its shape, and the soft loss that fits it.

Conventions that heads, models and objectives share (``B`` rows):

| kind | prediction | target | default soft loss |
|---|---|---|---|
| multiclass | logits ``[B, C]`` | class ``[B]`` int64 | core/soft-targets |
| binary | logits ``[B, 1]`` | 0/1 ``[B]`` float32 | core/bernoulli-kl |
| multilabel | logits ``[B, L]`` | 0/1 ``[B, L]`` float32 | core/bernoulli-kl |
| regression | values ``[B, D]`` | ``[B]`` (``D = 1``) or ``[B, D]`` float32 | core/teacher-mse |
| gaussian | ``[B, 2 * D]``: means, then log-variances | ``[B]`` (``D = 1``) or ``[B, D]`` float32 | core/gaussian-kl |
| segmentation | logits ``[B, C, H, W]`` | class ``[B, H, W]`` int64, 255 is ignored | core/pixel-kl |
| sequence | logits ``[B, T, V]`` | token ``[B, T]`` int64, -100 is ignored | core/token-kl |

A regression head may predict several values, such as quantiles, of one target ``[B]``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

SEGMENTATION_IGNORE: Final = 255
SEQUENCE_IGNORE: Final = -100


class OutputKind(StrEnum):
    """What a prediction means; see the table of the module."""

    MULTICLASS = "multiclass"
    BINARY = "binary"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    GAUSSIAN = "gaussian"
    SEGMENTATION = "segmentation"
    SEQUENCE = "sequence"


ALL_KINDS: Final = tuple(OutputKind)

DEFAULT_SOFT_LOSS: Final[dict[OutputKind, str]] = {
    OutputKind.MULTICLASS: "core/soft-targets",
    OutputKind.BINARY: "core/bernoulli-kl",
    OutputKind.MULTILABEL: "core/bernoulli-kl",
    OutputKind.REGRESSION: "core/teacher-mse",
    OutputKind.GAUSSIAN: "core/gaussian-kl",
    OutputKind.SEGMENTATION: "core/pixel-kl",
    OutputKind.SEQUENCE: "core/token-kl",
}
"""Objective that a recipe's ``use: soft`` stands for, by the head's output kind."""
