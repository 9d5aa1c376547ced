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

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.kinds import SEGMENTATION_IGNORE, SEQUENCE_IGNORE
from stillhouse.objectives.functional import (
    Objective,
    certain,
    class_columns,
    correlation_distance,
    full_precision,
    jsd_elements,
    kept,
    kl_elements,
    masked_mean,
    no_relations,
    require_same_shape,
    reverse_kl_elements,
    softened_kl,
    standardised,
    weighted_mean,
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


class PixelKL(Objective):
    """Soft targets of every pixel: ``T^2 * KL`` of softmax over classes.

    Shapes: logits ``[B, C, H, W]``; ``mask`` ``[B]`` or ``[B, H, W]``; ``target`` ``[N, H, W]``, int64 class of each
    pixel of the first N rows (N at most B: labelled rows come first), of which only 255 is read: a pixel that is
    ignored is not distilled. Rows without a label are distilled wholly. Reduction: sum over classes, mean over the
    pixels that are left.

    Source: Liu et al., "Structured Knowledge Distillation for Semantic Segmentation" (2019), its pixel-wise
    loss. Public implementations often divide by the rows only, which makes the loss H * W times larger.

    Args:
        temperature: T, which softens both distributions.
    """

    ignore = SEGMENTATION_IGNORE
    partial_target = True

    positive: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, *, temperature: Annotated[float, Range(1.0, 6.0, log=True)] = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.check_options()

    @full_precision
    def forward(
        self, student: Tensor, teacher: Tensor, *, target: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Loss of logits ``[B, C, H, W]`` over the pixels that ``target`` and ``mask`` leave."""
        require_same_shape(student, teacher, "[B, C, H, W]", 4)
        mask = self._valid(student, target, mask)
        student, teacher = kept(mask, student, teacher, outcomes=1)
        return masked_mean(softened_kl(student, teacher, self.temperature, dim=1), mask)

    def _valid(self, student: Tensor, target: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if target is None:
            return mask
        rows, _, *pixels = student.shape
        if target.is_floating_point() or list(target.shape[1:]) != pixels or not len(target) <= rows:
            raise ValueError(
                f"target {tuple(target.shape)} ({target.dtype}) must be class ids [N, H, W] of the first N rows of "
                f"logits {tuple(student.shape)}"
            )
        labelled = (target != self.ignore).to(student.dtype)
        unlabelled = labelled.new_ones(rows - len(target), *pixels)
        valid = torch.cat((labelled, unlabelled)) if len(unlabelled) else labelled
        return valid if mask is None else valid * weights_of(mask, valid.shape, valid.dtype)


class ChannelKL(Objective):
    """Where each class is seen: ``T^2 * KL`` of softmax over the positions of a channel.

    Shapes: logits (or maps) ``[B, C, H, W]``; ``mask`` ``[B]`` or ``[B, C]``. Reduction: sum over
    positions, mean over channels and rows (T^2 / C in the paper).

    Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction" (2021), whose factor T^2
    / C is the mean over channels here.

    Args:
        temperature: T, which softens both distributions.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, *, temperature: Annotated[float, Range(1.0, 10.0, log=True)] = 4.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Loss of logits ``[B, C, H, W]``."""
        require_same_shape(student, teacher, "[B, C, H, W]", 4)
        student, teacher = kept(mask, student.flatten(2), teacher.flatten(2), outcomes=2)
        return masked_mean(softened_kl(student, teacher, self.temperature, dim=2), mask)


class TokenKL(Objective):
    """Divergence of the next-token distributions at every valid token.

    Shapes: logits ``[B, T, V]``; ``target`` ``[B, T]`` (int64, aligned with the logits; -100 is left out);
    ``mask`` ``[B]`` or ``[B, T]``. Reduction: sum over the vocabulary, mean over valid tokens of the whole
    batch. No T^2.

    Source: forward KL: Sanh et al., "DistilBERT" (2019); reverse KL: Gu et al., "MiniLLM" (2024), equation
    1; generalised Jensen-Shannon: Agarwal et al., "On-Policy Distillation of Language Models" (2024),
    equation 1, with ``m = beta * p_teacher + (1 - beta) * p_student``. That divergence vanishes at ``beta``
    0 and 1, so that forward KL stands for 0 and reverse KL for 1, as in public implementations; those often average
    over padding too, or multiply by T^2, and without labels divide the sum by the rows instead of the tokens, which
    makes the loss T times larger.

    Args:
        direction: ``"forward"`` covers all that the teacher may say, ``"reverse"`` seeks its main mode,
            ``"jsd"`` lies between.
        beta: for ``"jsd"``: 0 is forward KL, 1 is reverse KL, between them the weight of the teacher in the
            mixture.
        temperature: divides both logits.
    """

    ignore = SEQUENCE_IGNORE

    positive: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(
        self,
        *,
        direction: Literal["forward", "reverse", "jsd"] = "forward",
        beta: float = 0.5,
        temperature: Annotated[float, Range(1.0, 6.0, log=True)] = 1.0,
    ) -> None:
        super().__init__()
        if direction not in ("forward", "reverse", "jsd"):
            raise ValueError(f"direction must be 'forward', 'reverse' or 'jsd', not {direction!r}")
        self.direction = direction
        self.beta, self.temperature = beta, temperature
        self.check_options()

    def check_options(self) -> None:
        """As of any objective; and ``beta`` lies in [0, 1]."""
        super().check_options()
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must lie in [0, 1], not {self.beta}")

    @full_precision
    def forward(
        self, student: Tensor, teacher: Tensor, *, target: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Loss of logits ``[B, T, V]`` over the tokens that ``target`` and ``mask`` leave."""
        require_same_shape(student, teacher, "[B, T, V]", 3)
        valid = self._valid(student, target, mask)
        student, teacher = kept(valid, student, teacher, outcomes=2)
        student_log = F.log_softmax(student / self.temperature, dim=-1)
        teacher_log = F.log_softmax(teacher / self.temperature, dim=-1)
        if self.direction == "forward" or (self.direction == "jsd" and self.beta == 0):
            elements = kl_elements(student_log, teacher_log)
        elif self.direction == "reverse" or self.beta == 1:
            elements = reverse_kl_elements(student_log, teacher_log)
        else:
            elements = jsd_elements(student_log, teacher_log, self.beta)
        return masked_mean(elements.sum(-1), valid)

    def _valid(self, student: Tensor, target: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if target is None:
            return mask
        if target.shape != student.shape[:2] or target.is_floating_point():
            raise ValueError(
                f"target {tuple(target.shape)} ({target.dtype}) must be token ids [B, T] "
                f"of logits {tuple(student.shape)}"
            )
        valid = (target != self.ignore).to(student.dtype)
        return valid if mask is None else valid * weights_of(mask, valid.shape, valid.dtype)


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


class CorrelationAware(Objective):
    """How the predicted Gaussians of a batch relate to each other: their distances, and how much they overlap.

    ``distance_weight * smooth_l1(distances) + overlap_weight * smooth_l1(overlaps)`` over all pairs of rows, smooth L1
    with its bend at 1::

        distance(i, j) = (KL(N_i || N_j) + KL(N_j || N_i)) / 2, over the mean of the positive ones
        overlap(i, j)  = sqrt(2 s_i s_j / (s_i^2 + s_j^2)) * exp(-(m_i - m_j)^2 / (2 (s_i^2 + s_j^2)))

    ``N_i`` has mean ``m_i`` and standard deviation ``s_i``; the overlap is the cosine of two densities. It stands
    beside ``gaussian-kl``, which compares row with row.

    Shapes: ``[B, 2 * D]``, D means and then D log-variances. Reduction: mean over the B * B pairs and the D values; 0
    for a batch of one, and no distances where all Gaussians are the same. Log-variances are clamped to the two bounds
    before use; outside of them they receive no gradient.

    Source: Li, Zhang, Bao, Harimoto, Sun, "Distributional Correlation-Aware Knowledge Distillation for Stock Trading
    Volume Prediction" (2022), its two correlational objectives. The authors' code has one value a row and adds 1e-9
    under the root of the overlap; their distance may also be a symmetric divergence of another form.

    Args:
        distance_weight: weight of the distances.
        overlap_weight: weight of the overlaps.
        min_log_variance: smallest log-variance that is told apart, in log of squared target units.
        max_log_variance: largest log-variance that is told apart.
    """

    not_negative: ClassVar[tuple[str, ...]] = ("distance_weight", "overlap_weight")

    def __init__(
        self,
        *,
        distance_weight: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0,
        overlap_weight: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0,
        min_log_variance: float = -20.0,
        max_log_variance: float = 40.0,
    ) -> None:
        super().__init__()
        self.distance_weight, self.overlap_weight = distance_weight, overlap_weight
        self.min_log_variance, self.max_log_variance = min_log_variance, max_log_variance
        self.check_options()

    def check_options(self) -> None:
        """As of any objective; and the two bounds have an order."""
        super().check_options()
        if not self.min_log_variance < self.max_log_variance:
            raise ValueError(
                f"min_log_variance {self.min_log_variance} must lie below max_log_variance {self.max_log_variance}"
            )

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of means and log-variances ``[B, 2 * D]``."""
        require_same_shape(student, teacher, "[B, 2 * D]", 2)
        if student.shape[1] % 2:
            raise ValueError(f"{tuple(student.shape)} does not split into means and as many log-variances")
        loss = no_relations(student)
        if len(student) < 2:
            return loss
        (student_far, student_near), (teacher_far, teacher_near) = (self._pairs(each) for each in (student, teacher))
        distances = F.smooth_l1_loss(_over_mean(student_far), _over_mean(teacher_far), reduction="none")
        overlaps = F.smooth_l1_loss(student_near, teacher_near, reduction="none")
        # All of one value: there is no mean distance to measure by.
        defined = (student_far > 0).any(-1).any(-1) & (teacher_far > 0).any(-1).any(-1)
        distances = torch.where(defined[:, None, None], distances, distances.detach() * 0.0)
        return loss + self.distance_weight * distances.mean() + self.overlap_weight * overlaps.mean()

    def _pairs(self, gaussians: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and overlaps of all pairs, both ``[D, B, B]``."""
        mean, log = gaussians.T.chunk(2)
        log = log.clamp(self.min_log_variance, self.max_log_variance)
        gap = log.unsqueeze(2) - log.unsqueeze(1)
        square = (mean.unsqueeze(2) - mean.unsqueeze(1)).square()
        inverse = torch.exp(-log).unsqueeze(2) + torch.exp(-log).unsqueeze(1)
        both = torch.exp(log).unsqueeze(2) + torch.exp(log).unsqueeze(1)
        distance = torch.sinh(0.5 * gap).square() + 0.25 * square * inverse
        overlap = torch.cosh(0.5 * gap).rsqrt() * torch.exp(-0.5 * square / both)
        return distance, overlap


def _over_mean(distances: Tensor) -> Tensor:
    """``[D, B, B]`` over the mean of what is positive in each of D; 0 where nothing is."""
    positive = distances > 0
    number = positive.sum((1, 2), keepdim=True)
    mean = distances.sum((1, 2), keepdim=True) / number.clamp(min=1)
    return distances / torch.where(mean > 0, mean, torch.ones_like(mean))


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
