"""Objectives between features: what the teacher's inner layers add to its answer.

Each is a module with ``forward(student, teacher, **extras) -> scalar`` over features of any width unless it
says otherwise. All compute in float32 whatever the precision of the run (float64 stays float64), pass no
gradient to the teacher, and have an exactly zero gradient where student and teacher agree. What is undefined, such
as the direction of a row of zeros, adds nothing to loss or gradient; what is not finite makes the loss NaN.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.objectives.functional import (
    Objective,
    angle_cosines,
    attention_map,
    averaged,
    full_precision,
    kept,
    masked_mean,
    no_relations,
    relative_distances,
    require_rows,
    require_same_shape,
    similarity_rows,
    squared_distances,
    unit_rows,
)


class Hints(Objective):
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
        if mask is None and student.numel():
            return F.mse_loss(student, teacher)
        student, teacher = kept(mask, student, teacher)
        return masked_mean((student - teacher).square(), mask)


class AttentionTransfer(Objective):
    """Where a layer looks: mean squared difference of L2-normalised maps, each the mean over channels of
    ``|x|^p``.

    Shapes: ``[B, C, H, W]`` (also ``[B, C, D, H, W]``) or three dimensions as ``layout`` says; channels may
    differ in number. Where positions differ in number, the finer map is averaged down to the coarser. Rows of which
    student or teacher is zero everywhere have no map and add 0. Reduction: mean over positions and rows.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention" (2017), equation 2, with the mean
    square of the authors' code in place of the norm. Public implementations differ in summing over positions, which
    multiplies the loss by their number; and, at sizes that differ, in averaging the features down before their
    power is taken, so that activations of opposite sign cancel, where this averages the maps.

    Args:
        p: power of the activations; a larger one stresses the strongest positions.
        layout: what three dimensions mean: ``"tokens"`` is ``[B, T, D]``, ``"channels"`` is ``[B, C, T]``.
    """

    positive: ClassVar[tuple[str, ...]] = ("p",)

    def __init__(self, *, p: float = 2.0, layout: Literal["tokens", "channels"] = "tokens") -> None:
        super().__init__()
        if layout not in ("tokens", "channels"):
            raise ValueError(f"layout must be 'tokens' or 'channels', not {layout!r}")
        self.p, self.layout = p, layout
        self.check_options()

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
        if not student.numel():
            return no_relations(student)
        coarser = [min(sizes) for sizes in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        (student_map, student_active), (teacher_map, teacher_active) = (
            unit_rows(averaged(attention_map(features, self.p), coarser).flatten(1)) for features in (student, teacher)
        )
        active = (student_active & teacher_active).unsqueeze(1)
        return torch.where(active, student_map - teacher_map, 0.0).square().mean()


class SimilarityPreserving(Objective):
    """Which rows of a batch are alike: ``||G_teacher - G_student||_F^2 / B^2`` of row-normalised inner
    products.

    Shapes: ``[B, ...]``, flattened; widths may differ. Reduction: mean over the B * B pairs; 0 for a batch
    of one. A row that is zero in student or teacher has no row of G and adds 0.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019): rows of G have L2 norm 1.
    Public implementations differ in L1 normalisation of the rows.
    """

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features ``[B, ...]``."""
        require_rows(student, teacher)
        if len(student) < 2:
            return no_relations(student)  # a row is like itself; normalising would leave rounding error
        (student_rows, student_active), (teacher_rows, teacher_active) = map(similarity_rows, (student, teacher))
        active = (student_active & teacher_active).unsqueeze(1)
        return torch.where(active, student_rows - teacher_rows, 0.0).square().mean()


class Relational(Objective):
    """How rows of a batch lie to each other: their distances over the mean distance, and the angles they
    form.

    ``distance_weight * smooth_l1(distances) + angle_weight * smooth_l1(cosines)``, smooth L1 with its bend
    at 1.

    Shapes: ``[B, ...]``, flattened; widths may differ. Memory: ``B^2`` for the distances and ``B^3`` for the angles,
    whatever the width. Reduction: mean over all B^2 pairs and B^3 triplets, those of equal rows included; 0 for a
    batch of one. An angle at which two rows of student or teacher coincide is undefined and adds 0, and so do the
    distances when all rows coincide.

    Source: Park et al., "Relational Knowledge Distillation" (2019), losses RKD-D and RKD-A, reduced as the
    authors' code does. Public implementations differ in taking the mean over pairs of different rows only, and in
    counting undefined angles as right ones.

    Args:
        distance_weight: weight of the distances.
        angle_weight: weight of the angles; 0 saves their computation.
    """

    not_negative: ClassVar[tuple[str, ...]] = ("distance_weight", "angle_weight")

    def __init__(self, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__()
        self.distance_weight, self.angle_weight = distance_weight, angle_weight
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features ``[B, ...]``."""
        require_rows(student, teacher)
        loss = no_relations(student)
        if len(student) < 2:
            return loss
        (student_squares, student_apart), (teacher_squares, teacher_apart) = (
            squared_distances(features.flatten(1)) for features in (student, teacher)
        )
        if self.distance_weight:
            distances = F.smooth_l1_loss(
                relative_distances(student_squares, student_apart), relative_distances(teacher_squares, teacher_apart)
            )
            defined = student_apart.any() & teacher_apart.any()
            loss = loss + self.distance_weight * torch.where(defined, distances, 0.0)
        if self.angle_weight:
            apart = student_apart & teacher_apart
            angles = F.smooth_l1_loss(angle_cosines(student_squares, apart), angle_cosines(teacher_squares, apart))
            loss = loss + self.angle_weight * angles
        return loss
