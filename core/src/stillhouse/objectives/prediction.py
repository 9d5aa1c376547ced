"""Objectives between predictions: what the teacher's answer adds to the label's.

Each is a module with ``forward(student, teacher, **extras) -> scalar``. All compute in float32 whatever the
precision of the run (float64 stays float64), pass no gradient to the teacher, refuse shapes that differ, and have
an exactly zero gradient where student and teacher agree (but for two that look at the label: `TeacherBounded` with a
margin, and `NormalisedKD`). Options that a recipe may schedule are plain attributes of the same name. ``mask`` (bool,
or weights) has the shape of the first dimensions of what is averaged; what it leaves out does not count in the mean
either, whatever it holds, and a mask of zeros or a batch without rows gives 0. Else what is not finite makes the
loss NaN.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.objectives.functional import (
    Objective,
    full_precision,
    kept,
    kl_elements,
    masked_mean,
    require_same_shape,
    softened_kl,
    weights_of,
)
from stillhouse.ranges import Range


class SoftTargets(Objective):
    """Soft targets: ``T^2 * KL(p_teacher || p_student)`` of softmax at temperature T.

    Shapes: logits ``[B, C]``; ``mask`` ``[B]``. Reduction: sum over classes, mean over rows.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2. The
    paper minimises the cross-entropy, which differs by the teacher's entropy, a constant for the student.
    Public implementations differ in ``reduction="mean"``, which divides by the classes too, and in leaving
    out T^2.

    Args:
        temperature: T, which softens both distributions; above 1 shows more of the teacher's small
            probabilities.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, *, temperature: Annotated[float, Range(1.0, 10.0, log=True)] = 4.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of logits ``[B, C]``."""
        require_same_shape(student, teacher, "[B, C]", 2)
        student, teacher = kept(mask, student, teacher, outcomes=1)
        return masked_mean(softened_kl(student, teacher, self.temperature, dim=1), mask)


class BernoulliKL(Objective):
    """Soft targets of yes/no labels: ``T^2 * KL`` between Bernoulli distributions, one per label.

    Shapes: logits ``[B, 1]`` (binary) or ``[B, L]`` (multilabel); ``mask`` ``[B]`` or ``[B, L]``.
    Reduction: sum over the two outcomes of a label, mean over labels and rows, as ``BCEWithLogitsLoss``
    averages the hard loss.

    Source: the equations of soft targets for two outcomes, a label's logit z being a softmax over ``[z,
    0]``. Public implementations often take a softmax over the labels instead, as if exactly one of them
    were true.

    Args:
        temperature: T, which divides both logits.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, *, temperature: Annotated[float, Range(1.0, 6.0, log=True)] = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of logits ``[B, L]``."""
        require_same_shape(student, teacher, "[B, L]", 2)
        student, teacher = kept(mask, student / self.temperature, teacher / self.temperature)
        yes = kl_elements(F.logsigmoid(student), F.logsigmoid(teacher))
        no = kl_elements(F.logsigmoid(-student), F.logsigmoid(-teacher))
        return self.temperature**2 * masked_mean(yes + no, mask)


class TeacherMSE(Objective):
    """Mean squared difference from the teacher's values, in squared units of the target.

    Shapes: values ``[B, D]``; ``mask`` ``[B]`` or ``[B, D]``. Reduction: mean over all elements.

    Source: regression on the outputs of another model, Ba and Caruana, "Do Deep Nets Really Need to be
    Deep?" (2014), equation 1, without its factor 1/2.
    """

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of values ``[B, D]``."""
        require_same_shape(student, teacher, "[B, D]", 2)
        student, teacher = kept(mask, student, teacher)
        return masked_mean((student - teacher).square(), mask)


class TeacherBounded(Objective):
    """The student's squared error to the label, counted only for rows where it does not beat the teacher's
    by a margin.

    Row i adds ``e_s = mean((student_i - target_i)^2)`` when ``e_s + margin > e_t``, otherwise 0: the
    teacher is a bound to reach, not a value to imitate, so that its own errors are never taught. With a margin a
    student that equals the teacher still learns from the label.

    Shapes: values ``[B, D]``; ``target`` ``[B, D]``, or ``[B]`` for D = 1; ``mask`` ``[B]``. Reduction:
    mean over values, then over rows, those that add 0 included.

    Source: Chen, Choi, Yu, Han, Chandraker, "Learning Efficient Object Detection Models with Knowledge
    Distillation" (2017), equation 4, which sums over the D coordinates where this takes the mean. Public
    implementations often count only the excess ``e_s - e_t``, or put the margin on the other side.

    Args:
        margin: by how much, in squared units of the target, the student must beat the teacher before a row
            stops counting.
    """

    not_negative: ClassVar[tuple[str, ...]] = ("margin",)

    def __init__(self, *, margin: float = 0.0) -> None:
        super().__init__()
        self.margin = margin
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of values ``[B, D]`` against ``target``."""
        require_same_shape(student, teacher, "[B, D]", 2)
        target = target.to(student.dtype)
        if target.dim() == 1 and student.shape[1] == 1:
            target = target.unsqueeze(1)
        if target.shape != student.shape:
            raise ValueError(f"target {tuple(target.shape)} does not fit values of shape {tuple(student.shape)}")
        if mask is not None:
            target = torch.where(weights_of(mask, target.shape[:1], target.dtype).unsqueeze(1) != 0, target, 0.0)
        student, teacher = kept(mask, student, teacher, outcomes=1)
        error = (student - target).square().mean(1)
        bound = (teacher - target).square().mean(1)
        # 0 for a row that is beaten, NaN for one of which either error is not finite.
        beaten = (error.detach() + bound) * 0.0
        return masked_mean(torch.where(error + self.margin > bound, error + beaten, beaten), mask)


class GaussianKL(Objective):
    """``KL(N_teacher || N_student)`` when both predict a mean and a variance.

    Shapes: ``[B, 2 * D]``, D means and then D log-variances; ``mask`` ``[B]`` or ``[B, D]``. Reduction:
    mean over values and rows, as ``GaussianNLLLoss`` averages the hard loss. Log-variances are clamped to
    the two bounds before use; outside of them they receive no gradient.

    Source: the divergence of two univariate Gaussians; Kullback and Leibler (1951).

    Args:
        min_log_variance: smallest log-variance that is told apart, in log of squared target units.
        max_log_variance: largest log-variance that is told apart.
    """

    def __init__(self, *, min_log_variance: float = -20.0, max_log_variance: float = 40.0) -> None:
        super().__init__()
        self.min_log_variance, self.max_log_variance = min_log_variance, max_log_variance
        self.check_options()

    def check_options(self) -> None:
        """As of any objective; and the two bounds have an order."""
        if not self.min_log_variance < self.max_log_variance:
            raise ValueError(
                f"min_log_variance {self.min_log_variance} must lie below max_log_variance {self.max_log_variance}"
            )

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of means and log-variances ``[B, 2 * D]``."""
        require_same_shape(student, teacher, "[B, 2 * D]", 2)
        if student.shape[1] % 2:
            raise ValueError(f"{tuple(student.shape)} does not split into means and as many log-variances")
        student_mean, student_log = student.chunk(2, dim=1)
        teacher_mean, teacher_log = teacher.chunk(2, dim=1)
        student_mean, teacher_mean = kept(mask, student_mean, teacher_mean)
        student_log, teacher_log = kept(mask, student_log, teacher_log)
        student_log = student_log.clamp(self.min_log_variance, self.max_log_variance)
        teacher_log = teacher_log.clamp(self.min_log_variance, self.max_log_variance)
        gap = teacher_log - student_log
        distance = (student_mean - teacher_mean).square() * torch.exp(-student_log)
        return masked_mean(0.5 * (torch.expm1(gap) - gap + distance), mask)
