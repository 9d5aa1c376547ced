"""Objectives between predictions of many positions a row: pixels of an image, tokens of a text. They keep to what
`stillhouse.objectives.prediction` says of all objectives."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.kinds import SEGMENTATION_IGNORE, SEQUENCE_IGNORE
from stillhouse.objectives.functional import (
    Objective,
    full_precision,
    jsd_elements,
    kept,
    kl_elements,
    masked_mean,
    require_same_shape,
    reverse_kl_elements,
    softened_kl,
    weights_of,
)
from stillhouse.ranges import Range


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
        # A copy of logits over a large vocabulary may be most of a run's memory: none is held under a second name.
        if self.temperature != 1:
            student, teacher = student / self.temperature, teacher / self.temperature
        student = F.log_softmax(student, dim=-1)
        teacher = F.log_softmax(teacher, dim=-1)
        if self.direction == "forward" or (self.direction == "jsd" and self.beta == 0):
            elements = kl_elements(student, teacher)
        elif self.direction == "reverse" or self.beta == 1:
            elements = reverse_kl_elements(student, teacher)
        else:
            elements = jsd_elements(student, teacher, self.beta)
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
