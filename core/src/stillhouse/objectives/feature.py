"""Objectives between features: what the teacher's inner layers add to its answer.

Each is a module with ``forward(student, teacher, **extras) -> scalar`` over features of any width unless it
says otherwise. All compute in float32 whatever the precision of the run (float64 stays float64), pass no
gradient to the teacher, and have an exactly zero gradient where student and teacher agree.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.objectives.functional import (
    angle_cosines,
    attention_map,
    averaged,
    full_precision,
    masked_mean,
    relative_distances,
    require_not_negative,
    require_positive,
    require_same_shape,
    similarity_rows,
)


class Hints(nn.Module):
    """Mean squared difference of two features of one shape; `make_adapter` makes the shapes equal.

    Shapes: any, with rows first; ``mask`` has the shape of the first dimensions, e.g. ``[B]`` or ``[B, T]``
    for padded tokens. Reduction: mean over all elements.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets" (2015), equation 3, which takes half the
    squared norm where this takes the mean, so that a weight means the same at any width.
    """

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of two features of one shape."""
        require_same_shape(student, teacher, "[B, ...] (an adapter makes them equal)")
        return masked_mean((student - teacher).square(), mask)


class AttentionTransfer(nn.Module):
    """Where a layer looks: mean squared difference of L2-normalised maps, each the mean over channels of
    ``|x|^p``.

    Shapes: ``[B, C, H, W]`` (also ``[B, C, D, H, W]``) or three dimensions as ``layout`` says; channels may
    differ in number. Where positions differ in number, the finer map is averaged down to the coarser.
    Reduction: mean over positions and rows.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention" (2017), equation 2, with the mean
    square of the authors' code in place of the norm. Public implementations differ in summing over
    positions, which multiplies the loss by their number.

    Args:
        p: power of the activations; a larger one stresses the strongest positions.
        layout: what three dimensions mean: ``"tokens"`` is ``[B, T, D]``, ``"channels"`` is ``[B, C, T]``.
    """

    def __init__(self, *, p: float = 2.0, layout: Literal["tokens", "channels"] = "tokens") -> None:
        super().__init__()
        require_positive(p=p)
        if layout not in ("tokens", "channels"):
            raise ValueError(f"layout must be 'tokens' or 'channels', not {layout!r}")
        self.p, self.layout = p, layout

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features ``[B, C, *positions]``."""
        if student.dim() != teacher.dim() or len(student) != len(teacher) or not 3 <= student.dim() <= 5:
            raise ValueError(
                f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same rows "
                "and one to three dimensions of positions beside the channels"
            )
        if student.dim() == 3 and self.layout == "tokens":
            student, teacher = student.transpose(1, 2), teacher.transpose(1, 2)
        coarser = [min(sizes) for sizes in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        student_map, teacher_map = (
            F.normalize(averaged(attention_map(features, self.p), coarser).flatten(1), p=2, dim=1)
            for features in (student, teacher)
        )
        return (student_map - teacher_map).square().mean()


class SimilarityPreserving(nn.Module):
    """Which rows of a batch are alike: ``||G_teacher - G_student||_F^2 / B^2`` of row-normalised inner
    products.

    Shapes: ``[B, ...]``, flattened; widths may differ. Reduction: mean over the B * B pairs; 0 for a batch
    of one.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019): rows of G have L2 norm 1.
    Public implementations differ in L1 normalisation of the rows.
    """

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features ``[B, ...]``."""
        _require_rows(student, teacher)
        if len(student) == 1:
            return student.sum() * 0.0  # a row is like itself; normalising would leave rounding error
        return (similarity_rows(student) - similarity_rows(teacher)).square().mean()


class Relational(nn.Module):
    """How rows of a batch lie to each other: their distances over the mean distance, and the angles they
    form.

    ``distance_weight * smooth_l1(distances) + angle_weight * smooth_l1(cosines)``, smooth L1 with its bend
    at 1.

    Shapes: ``[B, ...]``, flattened; widths may differ. The angles need ``B^2 * D`` memory, so prefer pooled
    embeddings to maps. Reduction: mean over all B^2 pairs and B^3 triplets, those of equal rows included; 0
    for a batch of one.

    Source: Park et al., "Relational Knowledge Distillation" (2019), losses RKD-D and RKD-A, reduced as the
    authors' code does. Public implementations differ in taking the mean over pairs of different rows only.

    Args:
        distance_weight: weight of the distances.
        angle_weight: weight of the angles; 0 saves their computation.
    """

    def __init__(self, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__()
        require_not_negative(distance_weight=distance_weight, angle_weight=angle_weight)
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features ``[B, ...]``."""
        _require_rows(student, teacher)
        student, teacher = student.flatten(1), teacher.flatten(1)
        student_gaps = student.unsqueeze(0) - student.unsqueeze(1)
        teacher_gaps = teacher.unsqueeze(0) - teacher.unsqueeze(1)
        loss = student.sum() * 0.0
        if self.distance_weight:
            distances = F.smooth_l1_loss(relative_distances(student_gaps), relative_distances(teacher_gaps))
            loss = loss + self.distance_weight * distances
        if self.angle_weight:
            angles = F.smooth_l1_loss(angle_cosines(student_gaps), angle_cosines(teacher_gaps))
            loss = loss + self.angle_weight * angles
        return loss


def _require_rows(student: Tensor, teacher: Tensor) -> None:
    if student.dim() < 2 or teacher.dim() < 2 or len(student) != len(teacher):
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must be [B, ...] with the same rows"
        )
