"""Building blocks of the objectives: pure functions of tensors, exact at a match and finite at extremes.

The divergences are elementwise, so that the caller chooses the reduction. The gradient of each element is
exactly zero where student and teacher agree; that of a plain sum of ``p * log(p / q)`` is not, because it
keeps the rounding error of ``sum(p) - 1``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Concatenate, ParamSpec, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

P = ParamSpec("P")


class Objective(nn.Module):
    """Base of the objectives here; a plain module with the same ``forward`` serves as well.

    Options are plain attributes, so that a schedule may set them. ``positive`` and ``not_negative`` name those that
    must be finite and so.
    """

    positive: ClassVar[tuple[str, ...]] = ()
    not_negative: ClassVar[tuple[str, ...]] = ()

    def check_options(self) -> None:
        """Called when made, before every step, and for both ends of a schedule.

        Raises:
            ValueError: an option has a value that it does not take; the text names it.
        """
        for name in self.positive:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be above 0, not {value}")
        for name in self.not_negative:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be at least 0, not {value}")


def full_precision(
    forward: Callable[Concatenate[Any, Tensor, Tensor, P], Tensor],
) -> Callable[Concatenate[Any, Tensor, Tensor, P], Tensor]:
    """Run ``forward(self, student, teacher, ...)`` outside autocast, in float32 (float64 if an input has it),
    with the teacher detached, after ``self.check_options()``: a schedule may have set an option since."""

    def wrapped(self: Any, student: Tensor, teacher: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        self.check_options()
        wide = torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32
        student, teacher, device = student.to(wide), teacher.detach().to(wide), student.device.type
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return forward(self, student, teacher, *args, **kwargs)
        with torch.autocast(device_type=device, enabled=False):
            return forward(self, student, teacher, *args, **kwargs)

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


def require_rows(student: Tensor, teacher: Tensor) -> None:
    """Refuse features that are not ``[B, ...]`` with the same rows; widths may differ.

    Raises:
        ValueError: naming both shapes.
    """
    if student.dim() < 2 or teacher.dim() < 2 or len(student) != len(teacher):
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must be [B, ...] with the same rows"
        )


def no_relations(student: Tensor) -> Tensor:
    """0, from which a gradient of zeros reaches ``student``; NaN where that is not finite."""
    return (student * 0.0).sum()


def weights_of(mask: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A mask as weights that broadcast against values of ``shape``.

    Args:
        mask: bool, or weights; its shape is that of the first dimensions of the values.
        shape: shape of the values.
        dtype: of the weights.

    Raises:
        ValueError: the shapes do not fit.
    """
    if not mask.dim() or list(mask.shape) != list(shape[: mask.dim()]):
        raise ValueError(f"mask {tuple(mask.shape)} does not fit values of shape {tuple(shape)}")
    return mask.to(dtype).reshape(mask.shape + (1,) * (len(shape) - mask.dim()))


def kept(
    mask: Tensor | None, student: Tensor, teacher: Tensor, *, outcomes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Student and teacher with zeros where ``mask`` is 0.

    What a mask leaves out may be NaN, and 0 times NaN is NaN, in the gradient too: it has to go before anything is
    computed from it.

    Args:
        mask: as in `masked_mean`, for the values that are computed from the two; None keeps everything.
        student: any shape.
        teacher: the same shape.
        outcomes: dimension that the values no longer have, because they are sums over it.

    Raises:
        ValueError: the shapes do not fit.
    """
    if mask is None:
        return student, teacher
    shape = list(student.shape)
    if outcomes is not None:
        del shape[outcomes]
    keep = weights_of(mask, shape, student.dtype) != 0
    if outcomes is not None:
        keep = keep.unsqueeze(outcomes)
    return torch.where(keep, student, 0.0), torch.where(keep, teacher, 0.0)


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of the ``values`` whose ``mask`` is not zero; 0 when nothing is left, or there is nothing.

    Args:
        values: any shape.
        mask: bool, or weights; its shape is that of the first dimensions of ``values``. None keeps
            everything.

    Raises:
        ValueError: the shapes do not fit.
    """
    if mask is None:
        return values.mean() if values.numel() else values.sum()
    weights = weights_of(mask, values.shape, values.dtype).expand_as(values)
    total = weights.sum()
    weighted = torch.where(weights != 0, values * weights, 0.0).sum()
    return weighted / torch.where(total > 0, total, torch.ones_like(total))


def certain(student: Tensor, teacher: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Logits whose softmax over ``dim`` is defined where student and teacher are infinite alike.

    Where both have the same logits of plus infinity, those share all probability. Where both rule out every outcome
    by minus infinity, no distribution is left; both become uniform, and the divergence is 0. An infinity in one of
    them alone stays, and its softmax is NaN: the loss shows it.
    """
    # Almost always all are finite, which one sum tells; elsewhere than on a CPU the question would wait for the device,
    # and under vmap a row has no value of its own.
    asked = student.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(student)
    if asked and math.isfinite((student.detach().sum() + teacher.detach().sum()).item()):
        return student, teacher
    student_sure, teacher_sure = student == torch.inf, teacher == torch.inf
    sure = student_sure.any(dim, keepdim=True) & (student_sure == teacher_sure).all(dim, keepdim=True)
    nothing = (student.detach().amax(dim, keepdim=True) == -torch.inf) & (teacher.amax(dim, keepdim=True) == -torch.inf)
    certainty = torch.where(student_sure | nothing, 0.0, -torch.inf).to(student.dtype)
    extreme = sure | nothing
    return torch.where(extreme, certainty, student), torch.where(extreme, certainty, teacher)


def kl_elements(student_log: Tensor, teacher_log: Tensor) -> Tensor:
    """Elements of ``KL(teacher || student)`` from log-probabilities of one shape; sum them over the outcomes.

    Each element is ``p_t * (log p_t - log p_s) - p_t + p_s``. The last two terms vanish in the sum over
    outcomes and make every element non-negative, with a gradient of ``p_s - p_t`` that is exactly zero at a
    match. An outcome that the teacher gives probability 0 (also by a logit of minus infinity) contributes
    no logarithm.
    """
    teacher = teacher_log.exp()
    return teacher * torch.where(teacher > 0, teacher_log - student_log, 0.0) - teacher + student_log.exp()


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
    student, teacher = certain(student, teacher, dim)
    student_log = F.log_softmax(student / temperature, dim=dim)
    teacher_log = F.log_softmax(teacher / temperature, dim=dim)
    return temperature**2 * kl_elements(student_log, teacher_log).sum(dim)


def class_columns(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """How the softmax of ``[B, C]`` varies within each class, as ``[C, B]``: the probabilities, up to a constant.

    A class that most rows are sure of has probabilities near 1, whose differences float32 no longer holds. There the
    (negative) probability of all other classes stands for it, which differs by the constant 1 and is exact.

    Args:
        logits: ``[B, C]``.
        weights: of the rows, ``[B]``.
    """
    probabilities = F.softmax(logits, dim=1)
    largest = torch.zeros_like(probabilities, dtype=torch.bool)
    largest = largest.scatter(1, probabilities.argmax(1, keepdim=True), True) if probabilities.numel() else largest
    others = torch.where(largest, 0.0, probabilities).sum(1, keepdim=True)
    others = torch.where(largest, others, 1.0 - probabilities)
    near_one = weighted_mean(probabilities.detach().T, weights) > 0.5
    return torch.where(near_one, -others.T, probabilities.T)


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of ``[N, M]`` over the second dimension, ``[N, 1]``, with ``weights`` ``[M]``."""
    if weights is None:
        return values.mean(1, keepdim=True)
    total = weights.sum()
    return (values * weights).sum(1, keepdim=True) / torch.where(total > 0, total, torch.ones_like(total))


def correlation_distance(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """``1 - Pearson correlation`` of each row of ``[N, M]``, as ``[N]``; 0 for a row in which either is
    constant.

    Args:
        student: ``[N, M]``.
        teacher: ``[N, M]``.
        weights: of the M observations; equal ones by default.
    """
    student_unit, student_varies = standardised(student, weights)
    teacher_unit, teacher_varies = standardised(teacher, weights)
    # For unit vectors 1 - <a, b> is half the squared distance, whose gradient is exactly zero at a match.
    distance = 0.5 * (student_unit - teacher_unit).square().sum(1)
    return torch.where(student_varies & teacher_varies, distance, 0.0)


def standardised(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows of ``[N, M]`` centred and at L2 norm 1, and which of them vary, ``[N]``.

    Constant is what varies by no more than the rounding error of its own magnitude: a class that all rows give a
    probability near 1e-11 still has rows that give it more and rows that give it less.
    """
    if weights is not None:
        values = torch.where(weights != 0, values, 0.0)
    largest = values.detach().abs().amax(1, keepdim=True) if values.shape[1] else values.new_zeros(len(values), 1)
    precision = torch.finfo(values.dtype)
    vanishes = largest < 64 * precision.tiny
    values = values / torch.where(vanishes, 1.0, largest)
    centred = values - weighted_mean(values, weights)
    if weights is not None:
        values, centred = values * weights.sqrt(), centred * weights.sqrt()
    norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    # Not the negation: a comparison with NaN is false, and NaN has to reach the loss.
    constant = vanishes | (norm <= 4 * precision.eps * torch.linalg.vector_norm(values, dim=1, keepdim=True))
    # Twice where: the gradient of a norm that is divided by is not finite near 0, even behind a where.
    unit = torch.where(constant, 0.0, centred) / torch.where(constant, 1.0, norm)
    return unit, ~constant.squeeze(1)


def unit_scale(features: Tensor, first: int) -> Tensor:
    """Divide by the largest magnitude over the dimensions from ``first`` on, a constant for the gradient.

    For what is invariant to scale: it keeps powers of large or tiny activations inside float32 and changes
    nothing.
    """
    largest = torch.linalg.vector_norm(
        features.detach(), ord=torch.inf, dim=tuple(range(first, features.dim())), keepdim=True
    )
    return features / torch.where(largest < torch.finfo(features.dtype).tiny, 1.0, largest)


def unit_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of ``[N, M]`` at L2 norm 1, and which of them have a direction, ``[N]``.

    No epsilon stands in for the norm of a zero row, whose gradient would be its inverse: the caller leaves such
    rows out. A row of which float32 cannot hold the squares counts as zero.
    """
    norm = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    vanishes = norm < math.sqrt(torch.finfo(values.dtype).tiny)
    return values / torch.where(vanishes, 1.0, norm), ~vanishes.squeeze(1)


def attention_map(features: Tensor, power: float) -> Tensor:
    """Mean over channels of ``|x|^power`` up to a factor per row: ``[B, C, *positions]`` to ``[B, 1, *positions]``."""
    if power > 2:  # powers up to 2 of anything that trains lie inside float32
        features = unit_scale(features, 1)
    # A norm over channels needs no copy of the features for their magnitudes or powers, and its gradient is 0 at
    # zeros, where that of a power below 1 is infinite.
    norm = torch.linalg.vector_norm(features, ord=power, dim=1, keepdim=True)
    norm = unit_scale(norm, 1)
    active = norm != 0
    return torch.where(active, torch.where(active, norm, 1.0).pow(power), 0.0)


def similarity_rows(features: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products between the rows of a batch, ``[B, ...]`` to ``[B, B]``, each row at L2 norm 1, and which rows
    have any, ``[B]``."""
    flat = unit_scale(features.flatten(1), 0)
    return unit_rows(torch.mm(flat, flat.T))


def squared_distances(features: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances between the rows of ``[B, D]``, up to a common factor, and which rows are apart; both
    ``[B, B]``.

    From inner products, so that nothing of size B * B * D is made. Their differences cancel where rows are near each
    other; centred and in float64 they keep the precision of float32 down to distances of about 1e-6 of the
    features, below which two rows count as one.
    """
    features = unit_scale(features, 0)
    wide = features if features.device.type == "mps" else features.double()  # mps has no float64
    wide = wide - wide.mean(0)
    gram = torch.mm(wide, wide.T)
    sizes = gram.diagonal().unsqueeze(0) + gram.diagonal().unsqueeze(1)
    squares = sizes - 2.0 * gram
    together = squares <= 64 * torch.finfo(wide.dtype).eps * sizes
    return torch.where(together, 0.0, squares).to(features.dtype), ~together


def relative_distances(squares: Tensor, apart: Tensor) -> Tensor:
    """Distances over their mean (that of the positive ones) from what `squared_distances` gives, ``[B, B]``."""
    distances = torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
    mean = distances.sum() / apart.sum().clamp(min=1)
    return distances / torch.where(mean == 0, torch.ones_like(mean), mean)


def angle_cosines(squares: Tensor, apart: Tensor) -> Tensor:
    """Cosines of the angles between rows a and c as seen from b, ``[B, B, B]`` indexed ``[b, a, c]``; 0, without
    gradient, where a or c is not ``apart`` from b.

    By the law of cosines: ``(|ab|^2 + |bc|^2 - |ac|^2) / (2 |ab| |bc|)``.
    """
    inverse = torch.where(apart, torch.where(apart, squares, 1.0).rsqrt(), 0.0)
    half = 0.5 * squares
    inner = half.unsqueeze(2) + half.unsqueeze(1) - half.unsqueeze(0)
    return inner * inverse.unsqueeze(2) * inverse.unsqueeze(1)


def averaged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """``[B, C, *positions]`` averaged down to ``size``, which is nowhere larger."""
    if list(maps.shape[2:]) == list(size):
        return maps
    pools: tuple[Callable[[Tensor, Any], Tensor], ...]
    pools = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
    return pools[len(size) - 1](maps, list(size))
