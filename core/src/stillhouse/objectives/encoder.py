"""Objectives between the inner layers of encoders of texts: hidden states, feature maps, attention.

Conventions as in `stillhouse.objectives.feature`; ``mask`` ``[B, T]`` is true where a token is, and padding, whatever
it holds, has no part in loss or gradient.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.objectives.functional import (
    Objective,
    full_precision,
    kept,
    masked_mean,
    require_same_shape,
    softened_kl,
    unit_rows,
    unit_scale,
)


class CosineEmbedding(Objective):
    """Direction of hidden states: ``1 - cos(student, teacher)`` at every token.

    Shapes: ``[B, T, D]`` or ``[B, D]``, equal after an adapter; ``mask`` ``[B, T]`` or ``[B]``. Reduction: mean over
    the tokens that are kept; one at which student or teacher is zero has no direction and adds 0.

    Source: Sanh, Debut, Chaumond, Wolf, "DistilBERT, a distilled version of BERT" (2019), section 2: the cosine
    embedding loss of the last hidden states.
    """

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of two features of one shape."""
        _require_features(student, teacher)
        student, teacher = kept(mask, student, teacher)
        distance, defined = _direction_gap(student, teacher)
        return masked_mean(torch.where(defined, 0.5 * distance, 0.0), mask)


class FeatureMaps(Objective):
    """MobileBERT's transfer of feature maps, in its parts: the map standardised over the width of each token, and the
    mean and the variance that this takes away::

        mse(standardised) + mean_weight * mse(mean) + variance_weight * |difference of variances|

    Shapes: ``[B, T, D]`` or ``[B, D]``, equal after an adapter; ``mask`` ``[B, T]`` or ``[B]``. Reduction: mean over
    width and over the tokens that are kept. A token of which student or teacher is constant has no standardised map,
    which then adds 0.

    Source: Sun, Yu, Song, Liu, Yang, Zhou, "MobileBERT: a Compact Task-Agnostic BERT" (2020), section 3.3: the loss of
    feature maps, decomposed into the discrepancy of normalised maps and of their statistics. The weights of the parts,
    1 and 1, are chosen here.

    Args:
        mean_weight: weight of the means.
        variance_weight: weight of the variances.
    """

    not_negative: ClassVar[tuple[str, ...]] = ("mean_weight", "variance_weight")

    def __init__(self, *, mean_weight: float = 1.0, variance_weight: float = 1.0) -> None:
        super().__init__()
        self.mean_weight, self.variance_weight = mean_weight, variance_weight
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of two features of one shape."""
        _require_features(student, teacher)
        student, teacher = kept(mask, student, teacher)
        student_mean, teacher_mean = (features.mean(dim=-1, keepdim=True) for features in (student, teacher))
        student_off, teacher_off = student - student_mean, teacher - teacher_mean
        student_variance, teacher_variance = (off.square().mean(dim=-1) for off in (student_off, teacher_off))
        # A standardised map is a unit vector times the root of its width, so that the mean over width is this sum.
        distance, defined = _direction_gap(student_off, teacher_off)
        parts = (
            torch.where(defined, distance, 0.0)
            + self.mean_weight * (student_mean - teacher_mean).squeeze(-1).square()
            + self.variance_weight * (student_variance - teacher_variance).abs()
        )
        return masked_mean(parts, mask)


class AttentionScores(Objective):
    """Where each token looks, head by head, from the attention scores before the softmax.

    ``"mse"``: mean squared difference of the scores (TinyBERT). ``"kl"``: KL divergence of their softmax from the
    teacher's (MobileBERT).

    Shapes: ``[B, H, T, T]``, queries before keys, heads equal in number after an adapter (a mixture of heads);
    ``mask`` ``[B, T]``. Reduction: mean over heads and over the pairs (``mse``) or queries (``kl``) of which no part is
    padding.

    Source: Jiao, Yin, Shang, Jiang, Chen, Li, Wang, Liu, "TinyBERT" (2020), equation 7; Sun et al., "MobileBERT"
    (2020), section 3.3, attention transfer. Both have as many heads as their teacher, which needs no adapter.

    Args:
        loss: which of the two.
    """

    def __init__(self, *, loss: Literal["mse", "kl"] = "mse") -> None:
        super().__init__()
        if loss not in ("mse", "kl"):
            raise ValueError(f"loss must be 'mse' or 'kl', not {loss!r}")
        self.loss = loss

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of scores ``[B, H, T, T]``."""
        require_same_shape(student, teacher, "[B, H, T, T]", 4)
        rows, _, queries, keys = student.shape
        if mask is None:
            mask = torch.ones(rows, keys, dtype=torch.bool, device=student.device)
        if list(mask.shape) != [rows, keys] or queries != keys:
            raise ValueError(f"mask {tuple(mask.shape)} does not fit scores of shape {tuple(student.shape)}")
        token = mask != 0
        pairs = (token[:, None, :, None] & token[:, None, None, :]).expand_as(student)
        student, teacher = kept(pairs, student, teacher)
        if self.loss == "mse":
            return masked_mean((student - teacher).square(), pairs)
        student, teacher = (scores.masked_fill(~pairs, -torch.inf) for scores in (student, teacher))
        return masked_mean(softened_kl(student, teacher, 1.0, -1), pairs.any(dim=-1))


def _require_features(student: Tensor, teacher: Tensor) -> None:
    require_same_shape(student, teacher, "[B, ..., D] (an adapter makes them equal)")
    if student.dim() < 2:
        raise ValueError(f"features {tuple(student.shape)} must be [B, ..., D]")


def _direction_gap(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of the unit vectors along the last dimension, ``2 * (1 - cos)``, whose gradient is exactly zero
    at a match; and where both have a direction. Both ``[B, ...]``."""
    shape = student.shape[:-1]
    (student_unit, student_active), (teacher_unit, teacher_active) = (
        unit_rows(unit_scale(features.flatten(0, -2), 1)) for features in (student, teacher)
    )
    distance = (student_unit - teacher_unit).square().sum(dim=1)
    return distance.reshape(shape), (student_active & teacher_active).reshape(shape)
