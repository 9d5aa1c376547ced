"""Objectives between features: what the teacher's inner layers add to its answer.

Each is a module with ``forward(student, teacher, **extras) -> scalar`` over features of any width unless it
says otherwise. All compute in float32 whatever the precision of the run (float64 stays float64), pass no
gradient to the teacher, and have an exactly zero gradient where student and teacher agree. What is undefined, such
as the direction of a row of zeros, adds nothing to loss or gradient; what is not finite makes the loss NaN.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from stillhouse.objectives.functional import (
    Objective,
    angle_cosines,
    attention_map,
    averaged,
    full_precision,
    kept,
    kl_elements,
    masked_mean,
    no_relations,
    relative_distances,
    require_rows,
    require_same_shape,
    similarity_rows,
    squared_distances,
    unit_rows,
    unit_scale,
)
from stillhouse.ranges import Range

Layout = Literal["tokens", "channels"]
"""What three dimensions mean: ``[B, T, D]`` or ``[B, C, T]``."""


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

    def __init__(self, *, p: float = 2.0, layout: Layout = "tokens") -> None:
        super().__init__()
        self.p, self.layout = p, _checked(layout)
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features ``[B, C, *positions]``."""
        student, teacher = _maps(student, teacher, self.layout)
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


class PKT(Objective):
    """Which rows of a batch are near each other, as probabilities: the divergence of the student's from the teacher's.

    ``sum over j != i of P(j | i) * log(P(j | i) / Q(j | i))``, P of the teacher, Q of the student, each
    ``K(i, j) / sum over k != i of K(i, k)`` with the kernel ``K(i, j) = (1 + cos(x_i, x_j)) / 2 + 1e-6``.

    Shapes: ``[B, ...]``, flattened; widths may differ. Reduction: mean over the rows; 0 for fewer than three, of which
    a row has but one neighbour. A row that is zero in student or teacher has no direction: it adds 0, and is no
    neighbour. The 1e-6 keeps two opposite rows from a logarithm of 0.

    Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer" (2018), equations
    3 to 6: the cosine kernel, shifted, and the KL divergence. The authors' code sums over each row itself too, adds
    1e-7 to norms and probabilities instead, and divides by B * B where the mean over rows divides by B.
    """

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features ``[B, ...]``."""
        require_rows(student, teacher)
        loss = no_relations(student)
        if len(student) < 3 or not student.numel() or not teacher.numel():
            return loss
        (student_unit, student_active), (teacher_unit, teacher_active) = (
            unit_rows(unit_scale(each.flatten(1), 1)) for each in (student, teacher)
        )
        active = student_active & teacher_active
        neighbour = (active.unsqueeze(1) & active.unsqueeze(0)).fill_diagonal_(False)
        some = neighbour.any(1)
        neighbour = neighbour | ~some.unsqueeze(1)  # a row without neighbours adds 0; its logarithms stay finite
        student_log, teacher_log = (
            F.log_softmax(torch.where(neighbour, _nearness(each), -torch.inf), dim=1)
            for each in (student_unit, teacher_unit)
        )
        per_row = kl_elements(student_log, teacher_log).sum(1)
        return loss + torch.where(some, per_row, 0.0).mean()


class NST(Objective):
    """Where in space the channels of a layer are active: the squared maximum mean discrepancy (MMD) of student and
    teacher between their sets of channel maps, with the kernel ``k(x, y) = <x, y>^2`` of maps at L2 norm 1::

        mean_ij k(s_i, s_j) - 2 * mean_ij k(s_i, t_j) + mean_ij k(t_i, t_j)

    Shapes: ``[B, C, H, W]`` (also ``[B, C, D, H, W]``) or three dimensions as ``layout`` says; channels may differ in
    number. Where positions differ in number, the finer maps are averaged down to the coarser. A map that is zero
    everywhere has ``k = 0`` to all; a row of which student or teacher has no other adds 0. Reduction: mean over the
    pairs of channels and the rows. Memory: C * C numbers a row.

    Source: Huang and Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer" (2017), equation 4
    with the polynomial kernel of degree 2 and offset 0. Public implementations differ in leaving out the last part,
    which is a constant of the student, so that their loss may be negative.

    Args:
        layout: what three dimensions mean: ``"tokens"`` is ``[B, T, D]``, ``"channels"`` is ``[B, C, T]``.
    """

    def __init__(self, *, layout: Layout = "tokens") -> None:
        super().__init__()
        self.layout = _checked(layout)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features ``[B, C, *positions]``."""
        student, teacher = _maps(student, teacher, self.layout)
        if not student.numel() or not teacher.numel():
            return no_relations(student)
        coarser = [min(sizes) for sizes in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        (student, student_active), (teacher, teacher_active) = (
            _unit_channels(averaged(each, coarser).flatten(2)) for each in (student, teacher)
        )
        value, pull = _discrepancy(student.detach(), teacher)
        # The gradient is given, not derived: as a difference of two equal products it is exactly zero at a match.
        given = (student * pull).sum((1, 2))
        return torch.where(student_active & teacher_active, value + given - given.detach(), value * 0.0).mean()


class VID(Objective):
    """How well the student's feature says the teacher's, channel by channel: the negative log-likelihood of a Gaussian
    around it, with a learned variance for each channel ``c``::

        mean of  (t_c - s_c)^2 / (2 * v_c) + log(v_c) / 2

    Channels of the teacher that the student cannot say get a large variance, and count less. The variances are trained
    with the student, and never saved with it. The gradient is exactly zero for a student that equals the teacher, the
    loss is not, and may be negative.

    Shapes: any equal ones after an adapter, with rows first and channels second, or last as ``layout`` says; ``mask``
    has the shape of the first dimensions before the channels, e.g. ``[B]``. Reduction: mean over all elements.

    Source: Ahn, Hu, Damianou, Lawrence, Dai, "Variational Information Distillation for Knowledge Transfer" (2019),
    equations 5 and 6: ``v_c = log(1 + exp(a_c)) + 1e-5``. The authors' mean is a network of three 1x1 convolutions;
    here it is the adapter, of one.

    Args:
        initial_variance: of every channel, in squared units of the teacher's feature.
        layout: what three dimensions mean: ``"tokens"`` is ``[B, T, D]``, ``"channels"`` is ``[B, C, T]``.
    """

    smallest = 1e-5

    def __init__(
        self, *, initial_variance: Annotated[float, Range(0.1, 10.0, log=True)] = 5.0, layout: Layout = "tokens"
    ) -> None:
        super().__init__()
        self.initial_variance, self.layout = initial_variance, _checked(layout)
        if not (math.isfinite(initial_variance) and initial_variance > self.smallest):
            raise ValueError(f"initial_variance must be above {self.smallest}, not {initial_variance}")
        self.raw_variance: UninitializedParameter = UninitializedParameter()  # its length is known with the first batch

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of two features of one shape."""
        require_same_shape(student, teacher, "[B, ...] (an adapter makes them equal)")
        if student.dim() < 2:
            raise ValueError(f"features {tuple(student.shape)} must be [B, ...] with channels")
        last = student.dim() == 3 and self.layout == "tokens"
        channels = student.shape[-1 if last else 1]
        if isinstance(self.raw_variance, UninitializedParameter):
            over = self.initial_variance - self.smallest
            self.raw_variance.materialize((channels,), device=student.device, dtype=torch.float32)
            torch.nn.init.constant_(self.raw_variance, over + math.log(-math.expm1(-over)))
        if len(self.raw_variance) != channels:
            raise ValueError(f"features {tuple(student.shape)} must have {len(self.raw_variance)} channels, as before")
        student, teacher = kept(mask, student, teacher)
        variance = F.softplus(self.raw_variance.to(student.dtype)) + self.smallest
        if not last:
            variance = variance.reshape(-1, *(1 for _ in student.shape[2:]))
        return masked_mean(0.5 * ((student - teacher).square() / variance + variance.log()), mask)


def _checked(layout: Layout) -> Layout:
    if layout not in ("tokens", "channels"):
        raise ValueError(f"layout must be 'tokens' or 'channels', not {layout!r}")
    return layout


def _maps(student: Tensor, teacher: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Two features as ``[B, C, *positions]``.

    Raises:
        ValueError: they do not have the same rows, or one to three dimensions of positions each.
    """
    if student.dim() != teacher.dim() or len(student) != len(teacher) or not 3 <= student.dim() <= 5:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same rows "
            "and one to three dimensions of positions beside the channels"
        )
    if student.dim() == 3 and layout == "tokens":
        return student.transpose(1, 2), teacher.transpose(1, 2)
    return student, teacher


def _nearness(unit: Tensor) -> Tensor:
    """Logarithm of the shifted cosines between rows at L2 norm 1, ``[B, B]``."""
    return torch.log(0.5 * (1.0 + torch.mm(unit, unit.T)).clamp(min=0.0) + 1e-6)


def _unit_channels(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Channel maps of ``[B, C, P]`` at L2 norm 1, and which rows have one that is not zero, ``[B]``."""
    unit, active = unit_rows(unit_scale(maps.flatten(0, 1), 1))
    return unit.reshape(maps.shape), active.reshape(maps.shape[:2]).any(1)


def _discrepancy(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Squared MMD between the maps of each row, ``[B]``, and its gradient in the student's maps, ``[B, C, P]``."""
    own, cross, other = (
        torch.bmm(one, two.transpose(1, 2)) for one, two in ((student, student), (student, teacher), (teacher, teacher))
    )
    value = own.square().mean((1, 2)) - 2.0 * cross.square().mean((1, 2)) + other.square().mean((1, 2))
    pull = torch.bmm(own, student) / own.shape[2] - torch.bmm(cross, teacher) / cross.shape[2]
    return value.clamp(min=0.0), 4.0 / student.shape[1] * pull
