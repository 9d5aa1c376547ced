"""Building blocks of the objectives: pure functions of tensors, exact at a match and finite at extremes.

The divergences are elementwise, so that the caller chooses the reduction. The gradient of each element is
exactly zero where student and teacher agree; that of a plain sum of ``p * log(p / q)`` is not, because it
keeps the rounding error of ``sum(p) - 1``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, cast

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_NORM = 1e-7
"""Norm under which a centred vector of probabilities counts as constant; the rounding error of float32 lies
below."""

P = ParamSpec("P")


def full_precision(
    forward: Callable[Concatenate[Any, Tensor, Tensor, P], Tensor],
) -> Callable[Concatenate[Any, Tensor, Tensor, P], Tensor]:
    """Run ``forward(self, student, teacher, ...)`` outside autocast, in float32 (float64 if an input has it),
    with the teacher detached."""

    def wrapped(self: Any, student: Tensor, teacher: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        wide = torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32
        with torch.autocast(device_type=student.device.type, enabled=False):
            return forward(self, student.to(wide), teacher.detach().to(wide), *args, **kwargs)

    functools.update_wrapper(wrapped, forward)
    return cast(Callable[Concatenate[Any, Tensor, Tensor, P], Tensor], wrapped)


def require_same_shape(student: Tensor, teacher: Tensor, expected: str, rank: int | None = None) -> None:
    """Refuse what broadcasting would silently accept.

    Raises:
        ValueError: the shapes differ, or do not have ``rank`` dimensions; the text names both.
    """
    if student.shape != teacher.shape or (rank is not None and student.dim() != rank):
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must both have the shape {expected}"
        )


def require_positive(**options: float) -> None:
    """Refuse options that are not finite and above zero.

    Raises:
        ValueError: naming the first such option.
    """
    for name, value in options.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be above 0, not {value}")


def require_not_negative(**options: float) -> None:
    """Refuse options that are not finite and at least zero.

    Raises:
        ValueError: naming the first such option.
    """
    for name, value in options.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be at least 0, not {value}")


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of the ``values`` whose ``mask`` is not zero; 0 when nothing is left.

    Args:
        values: any shape.
        mask: bool, or weights; its shape is that of the first dimensions of ``values``. None keeps
            everything.

    Raises:
        ValueError: the shapes do not fit.
    """
    if mask is None:
        return values.mean() if values.numel() else values.sum()
    if mask.shape != values.shape[: mask.dim()]:
        raise ValueError(f"mask {tuple(mask.shape)} does not fit values of shape {tuple(values.shape)}")
    weights = mask.to(values.dtype).reshape(mask.shape + (1,) * (values.dim() - mask.dim())).expand_as(values)
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))


def kl_elements(student_log: Tensor, teacher_log: Tensor) -> Tensor:
    """Elements of ``KL(teacher || student)`` from log-probabilities of one shape; sum them over the outcomes.

    Each element is ``p_t * (log p_t - log p_s) - p_t + p_s``. The last two terms vanish in the sum over
    outcomes and make every element non-negative, with a gradient of ``p_s - p_t`` that is exactly zero at a
    match. An outcome that the teacher gives probability 0 (also by a logit of minus infinity) contributes
    no logarithm.
    """
    teacher = teacher_log.exp()
    gap = torch.where(teacher > 0, teacher_log - student_log, torch.zeros_like(teacher))
    return teacher * gap - teacher + student_log.exp()


def reverse_kl_elements(student_log: Tensor, teacher_log: Tensor) -> Tensor:
    """Elements of ``KL(student || teacher)``, in the manner of `kl_elements`."""
    student = student_log.exp()
    gap = torch.where(student > 0, student_log - teacher_log, torch.zeros_like(student))
    return student * gap - student + teacher_log.exp()


def jsd_elements(student_log: Tensor, teacher_log: Tensor, beta: float) -> Tensor:
    """Elements of ``beta * KL(p_t || m) + (1 - beta) * KL(p_s || m)`` with ``m = beta * p_t + (1 - beta) *
    p_s``, for ``0 < beta < 1``."""
    student, teacher = student_log.exp(), teacher_log.exp()
    # m is where the sum of the two divergences is least, so no gradient passes through it, nor through log
    # p_s: what is left is that of the p_s in front. Without grad for the logarithms it is exactly zero at a
    # match.
    with torch.no_grad():
        gap = torch.nan_to_num(teacher_log - student_log, nan=0.0)
        below, above = gap.clamp(max=0.0), gap.clamp(min=0.0)
        student_over_m = torch.where(
            gap <= 0,
            -torch.log1p(beta * torch.expm1(below)),
            -above - torch.log1p((1 - beta) * torch.expm1(-above)),
        )
        teacher_over_m = torch.where(
            gap <= 0,
            below - torch.log1p(beta * torch.expm1(below)),
            -torch.log1p((1 - beta) * torch.expm1(-above)),
        )
        student_over_m = torch.where(student > 0, student_over_m, torch.zeros_like(student))
        teacher_over_m = torch.where(teacher > 0, teacher_over_m, torch.zeros_like(teacher))
    return beta * teacher * teacher_over_m + (1 - beta) * student * student_over_m


def softened_kl(student: Tensor, teacher: Tensor, temperature: float, dim: int) -> Tensor:
    """``T^2 * KL(softmax(teacher / T) || softmax(student / T))`` over ``dim``, which is summed away."""
    require_positive(temperature=temperature)
    student_log = F.log_softmax(student / temperature, dim=dim)
    teacher_log = F.log_softmax(teacher / temperature, dim=dim)
    return temperature**2 * kl_elements(student_log, teacher_log).sum(dim)


def correlation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 - Pearson correlation`` of each row of ``[N, M]``, as ``[N]``; 0 for a row in which either is
    constant."""
    student = student - student.mean(1, keepdim=True)
    teacher = teacher - teacher.mean(1, keepdim=True)
    student_norm = torch.linalg.vector_norm(student, dim=1, keepdim=True)
    teacher_norm = torch.linalg.vector_norm(teacher, dim=1, keepdim=True)
    defined = (student_norm > SMALLEST_NORM) & (teacher_norm > SMALLEST_NORM)
    one = torch.ones_like(student_norm)
    student = student / torch.where(defined, student_norm, one)
    teacher = teacher / torch.where(defined, teacher_norm, one)
    # For unit vectors 1 - <a, b> is half the squared distance, whose gradient is exactly zero at a match.
    distance = 0.5 * (student - teacher).square().sum(1)
    return torch.where(defined.squeeze(1), distance, torch.zeros_like(distance))


def unit_scale(features: Tensor, first: int) -> Tensor:
    """Divide by the largest magnitude over the dimensions from ``first`` on, a constant for the gradient.

    For what is invariant to scale: it keeps powers of large or tiny activations inside float32 and changes
    nothing.
    """
    largest = features.detach().abs().amax(dim=tuple(range(first, features.dim())), keepdim=True)
    return features / torch.where(largest > 0, largest, torch.ones_like(largest))


def attention_map(features: Tensor, power: float) -> Tensor:
    """Mean over channels of ``|x|^power``: ``[B, C, *positions]`` to ``[B, 1, *positions]``, each row at its
    own scale."""
    return unit_scale(features, 1).abs().pow(power).mean(1, keepdim=True)


def similarity_rows(features: Tensor) -> Tensor:
    """Inner products between the rows of a batch, ``[B, ...]`` to ``[B, B]``, each row at L2 norm 1."""
    flat = unit_scale(features.flatten(1), 0)
    return F.normalize(torch.mm(flat, flat.T), p=2, dim=1)


def relative_distances(differences: Tensor) -> Tensor:
    """Distances of ``differences`` ``[B, B, D]`` over their mean (that of the positive ones), ``[B, B]``."""
    distances = torch.linalg.vector_norm(differences, dim=2)
    positive = (distances > 0).sum().clamp(min=1)
    mean = distances.sum() / positive
    relative: Tensor = distances / torch.where(mean > 0, mean, torch.ones_like(mean))
    return relative


def angle_cosines(differences: Tensor) -> Tensor:
    """Cosines of all angles that three rows form, ``[B, B, D]`` to ``[B, B, B]``; 0 where two rows
    coincide."""
    directions = F.normalize(differences, p=2, dim=2)
    cosines: Tensor = torch.bmm(directions, directions.transpose(1, 2))
    return cosines


def averaged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """``[B, C, *positions]`` averaged down to ``size``, which is nowhere larger."""
    if list(maps.shape[2:]) == list(size):
        return maps
    pools: tuple[Callable[[Tensor, Any], Tensor], ...]
    pools = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
    return pools[len(size) - 1](maps, list(size))
