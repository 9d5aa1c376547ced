"""Objectives between logits of classes beyond plain soft targets: which part of the teacher's answer counts, on which
scale. They keep to what `stillhouse.objectives.prediction` says of all objectives."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.objectives.functional import (
    Objective,
    certain,
    class_columns,
    correlation_distance,
    full_precision,
    kept,
    kl_elements,
    masked_mean,
    require_same_shape,
    standardised,
    weighted_mean,
    weights_of,
)
from stillhouse.ranges import Range


class DKD(Objective):
    """Decoupled soft targets: ``T^2 * (alpha * TCKD + beta * NCKD)``.

    TCKD is the divergence of (true class, all others), NCKD that of the distributions among the others
    alone. The true class is masked out exactly, with a logit of minus infinity. Soft targets are the case
    ``alpha = 1``, ``beta = 1 - p_teacher(true)``. Where student or teacher rules out all others by minus infinity,
    there is no distribution among them and NCKD is 0.

    Shapes: logits ``[B, C]`` with C at least 2 (with 2, NCKD is 0); ``target`` ``[B]``, int64 class ids;
    ``mask`` ``[B]``. Reduction: sum over classes, mean over rows.

    Source: Zhao et al., "Decoupled Knowledge Distillation" (2022), equation 7. Public implementations
    subtract 1000 from the true logit instead of masking it, take ``log(softmax)``, or forget to divide by
    the rows.

    Args:
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T, which softens both distributions.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)
    not_negative: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: Annotated[float, Range(0.5, 8.0, log=True)] = 8.0,
        temperature: Annotated[float, Range(1.0, 10.0, log=True)] = 4.0,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of logits ``[B, C]`` with the true class ``target`` ``[B]``."""
        ids, student, teacher = _classes_and_logits(student, teacher, target, mask)
        student, teacher = certain(student / self.temperature, teacher / self.temperature, 1)
        true = _one_hot(ids, student)
        target_classes = kl_elements(_true_and_rest(student, true), _true_and_rest(teacher, true))
        per_row = self.alpha * target_classes.sum(1) + self.beta * _other_classes(student, teacher, true)
        return self.temperature**2 * masked_mean(per_row, mask)


class DIST(Objective):
    """Correlation instead of equality: ``T^2 * (beta * inter + gamma * intra)``, each ``1 - Pearson`` of
    softmax at T.

    ``inter`` correlates the classes of a row, ``intra`` the rows of a class. A correlation that is not
    defined, because student or teacher is constant along it, adds 0: all of ``intra`` in a batch of one.

    Shapes: logits ``[B, C]``; ``mask`` ``[B]``: weights of the rows in the mean of ``inter`` and in the correlations
    of ``intra``. Reduction: mean over rows (``inter``) and over classes (``intra``).

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher" (2022), losses inter and intra.
    Public implementations add 1e-8 to the product of the norms, which shrinks the correlation of classes
    that are rare in a batch.

    Args:
        beta: weight of the correlation within rows.
        gamma: weight of the correlation within classes.
        temperature: T, which softens both distributions.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)
    not_negative: ClassVar[tuple[str, ...]] = ("beta", "gamma")

    def __init__(
        self, *, beta: float = 1.0, gamma: float = 1.0, temperature: Annotated[float, Range(1.0, 6.0, log=True)] = 1.0
    ) -> None:
        super().__init__()
        self.beta, self.gamma, self.temperature = beta, gamma, temperature
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of logits ``[B, C]``."""
        require_same_shape(student, teacher, "[B, C]", 2)
        if mask is not None and mask.dim() != 1:
            raise ValueError(f"mask {tuple(mask.shape)} must be [B] for logits {tuple(student.shape)}")
        student, teacher = kept(mask, student, teacher, outcomes=1)
        weights = None if mask is None else mask.to(student.dtype)
        student, teacher = student / self.temperature, teacher / self.temperature
        inter = masked_mean(correlation_distance(F.softmax(student, dim=1), F.softmax(teacher, dim=1)), mask)
        columns = class_columns(student, weights), class_columns(teacher, weights)
        intra = correlation_distance(*columns, weights).mean()
        return self.temperature**2 * (self.beta * inter + self.gamma * intra)


class StandardisedLogits(Objective):
    """Soft targets of standardised logits: ``T^2 * KL(softmax(Z(teacher) / T) || softmax(Z(student) / T))``, ``Z`` the
    logits of a row less their mean, over their standard deviation.

    The student has to reach the order and the proportions of the teacher's logits, not their level and range, which a
    small network may not have room for. A row of which student or teacher is constant has no ``Z`` and adds 0.

    Shapes: logits ``[B, C]``; ``mask`` ``[B]``. Reduction: sum over classes, mean over rows.

    Source: Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge Distillation" (2024), algorithm 1, and the
    standard deviation of its equation for Z: over the classes, divided by C. The authors' code divides by C - 1, adds
    1e-7 to it, and multiplies the loss by a weight of 9.

    Args:
        temperature: T, which softens both distributions.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, *, temperature: Annotated[float, Range(1.0, 6.0, log=True)] = 2.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of logits ``[B, C]``."""
        require_same_shape(student, teacher, "[B, C]", 2)
        student, teacher = kept(mask, student, teacher, outcomes=1)
        (student, student_varies), (teacher, teacher_varies) = (standardised(each, None) for each in (student, teacher))
        scale = student.shape[1] ** 0.5 / self.temperature  # rows are at norm 1, and Z has the norm sqrt(C)
        per_row = kl_elements(F.log_softmax(student * scale, dim=1), F.log_softmax(teacher * scale, dim=1)).sum(1)
        return self.temperature**2 * masked_mean(torch.where(student_varies & teacher_varies, per_row, 0.0), mask)


class NormalisedKD(Objective):
    """Normalised distillation: the true class by the confidence in it, the other classes as a distribution of their
    own: ``-P_true * log S_true + gamma * T^2 * KL(N(P) || N(S))``.

    ``S`` is the student's softmax, at T = 1 in the first part; ``N`` the softmax at T of the logits of all classes but
    the true one. ``P`` is the teacher's, or (``soft_labels="customised"``) made of the student itself, which needs no
    teacher::

        P_true of row i = S_true(i)^2 + 1 - mean over rows of S_true^2
        N(P)_k = (1 / r_k) / sum over j of (1 / r_j),    r_k = 1, 2, ... the rank of class k among the others by S

    Neither has a gradient. The first part has one at a match, too: as a label's loss, it is least at certainty.

    Shapes: logits ``[B, C]`` with C at least 2 (with 2, the others are one class, and add 0); ``target`` ``[B]``, int64
    class ids; ``mask`` ``[B]``. Reduction: sum over classes, mean over rows.

    Source: Yang, Zeng, Li, Zhang, Yuan, Li, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels" (2023): its normalised loss (NKD) and its customised
    labels (USKD). The paper has the cross-entropy of the others, which differs by a constant from the divergence here,
    and adds the loss of the label, which is the hard loss here; it ranks classes by the mean of the student's and an
    auxiliary classifier's answers, where this ranks them by the student's.

    Args:
        gamma: weight of the other classes.
        temperature: T, which softens the distributions of the other classes.
        soft_labels: ``"teacher"``, or ``"customised"`` from the student itself.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)
    not_negative: ClassVar[tuple[str, ...]] = ("gamma",)

    def __init__(
        self,
        *,
        gamma: Annotated[float, Range(0.3, 5.0, log=True)] = 1.5,
        temperature: Annotated[float, Range(1.0, 6.0, log=True)] = 1.0,
        soft_labels: Literal["teacher", "customised"] = "teacher",
    ) -> None:
        super().__init__()
        if soft_labels not in ("teacher", "customised"):
            raise ValueError(f"soft_labels must be 'teacher' or 'customised', not {soft_labels!r}")
        self.gamma, self.temperature, self.soft_labels = gamma, temperature, soft_labels
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of logits ``[B, C]`` with the true class ``target`` ``[B]``."""
        ids, student, teacher = _classes_and_logits(student, teacher, target, mask)
        true = _one_hot(ids, student)
        student, teacher = certain(student, teacher, 1)
        log_true = F.log_softmax(student, dim=1).gather(1, ids.unsqueeze(1)).squeeze(1)
        if self.soft_labels == "teacher":
            confidence = F.softmax(teacher, dim=1).gather(1, ids.unsqueeze(1)).squeeze(1)
            others = teacher / self.temperature
        else:
            square = log_true.detach().exp().square()
            weights = None if mask is None else weights_of(mask, square.shape, square.dtype)
            confidence = square + 1 - weighted_mean(square.unsqueeze(0), weights).squeeze(0)
            ordered = student.detach().masked_fill(true, -torch.inf).argsort(dim=1, descending=True, stable=True)
            others = -(ordered.argsort(dim=1) + 1).to(student.dtype).log()
        other = self.gamma * self.temperature**2 * _other_classes(student / self.temperature, others, true)
        return masked_mean(other - confidence * log_true, mask)


def _one_hot(ids: Tensor, logits: Tensor) -> Tensor:
    """Where the true class of each row is, bool ``[B, C]``.

    Raises:
        ValueError: an id lies outside [0, C). An accelerator says so by an assertion of its own, since reading the ids
            would wait for it.
    """
    try:
        return torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids.unsqueeze(1), True)
    except (RuntimeError, IndexError) as error:
        if "out of bounds" not in str(error):
            raise
        raise ValueError(
            f"target must hold class ids in [0, {logits.shape[1]}) for logits {tuple(logits.shape)}, "
            f"not {int(ids.min())} to {int(ids.max())}"
        ) from error


def _other_classes(student: Tensor, teacher: Tensor, true: Tensor) -> Tensor:
    """KL divergence of the distributions among the classes that are not ``true``, ``[B]``."""
    student, teacher = (each.masked_fill(true, -torch.inf) for each in (student, teacher))
    # Without others a row has no distribution among them: any finite logits do, the same for both.
    none = (student.detach().amax(1, keepdim=True) == -torch.inf) | (teacher.amax(1, keepdim=True) == -torch.inf)
    logs = (F.log_softmax(each.masked_fill(none, 0.0), dim=1) for each in (student, teacher))
    return kl_elements(*logs).sum(1)


def _true_and_rest(logits: Tensor, true: Tensor) -> Tensor:
    """Log-probabilities of (true class, all others), ``[B, 2]``."""
    log = F.log_softmax(logits, dim=1)
    others = log.masked_fill(true, -torch.inf)
    # logsumexp of nothing but minus infinity is right, but its gradient is NaN.
    none = others.detach().amax(1, keepdim=True) == -torch.inf
    rest = others.masked_fill(none, 0.0).logsumexp(1, keepdim=True).masked_fill(none, -torch.inf)
    return torch.cat((torch.where(true, log, 0.0).sum(1, keepdim=True), rest), dim=1)


def _classes_and_logits(
    student: Tensor, teacher: Tensor, target: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Class ids ``[B]`` and the two logits ``[B, C]``, harmless where ``mask`` is 0.

    Raises:
        ValueError: shapes that do not fit, or a target that holds no classes.
    """
    require_same_shape(student, teacher, "[B, C]", 2)
    if student.shape[1] < 2 or target.shape != student.shape[:1] or target.is_floating_point():
        raise ValueError(
            f"logits {tuple(student.shape)} and target {tuple(target.shape)} ({target.dtype}) "
            "must be [B, C] with C at least 2, and class ids [B]"
        )
    ids = target.long()
    if mask is not None:
        ids = torch.where(weights_of(mask, ids.shape, student.dtype) != 0, ids, 0)
    student, teacher = kept(mask, student, teacher, outcomes=1)
    return ids, student, teacher
