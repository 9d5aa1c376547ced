"""Objectives that contrast rows: what belongs together is drawn together, the labels saying what does."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.objectives.functional import (
    Objective,
    full_precision,
    no_relations,
    require_rows,
    unit_rows,
    unit_scale,
)


class SupervisedContrastive(Objective):
    """Each student feature is drawn to the teacher's features of its own class, and away from those of other classes.

    ``-1/|P(i)| sum_{p in P(i)} log softmax_a(cos(student_i, teacher_a) / temperature)[p]``, ``P(i)`` the rows of row
    i's class, itself included: the teacher's features are the contrast set. A batch of one, or of one row a class that
    the student matches, still has a positive: its own teacher feature. Unlike the other objectives between features it
    is not zero, nor its gradient, where student and teacher agree.

    Shapes: ``[B, ...]``, flattened, of equal width (an adapter makes them equal); ``target`` ``[B]``, classes.
    Reduction: mean over rows; 0 for a batch of one. A student's row of zeros has no cosine and adds 0, in loss and
    gradient; a teacher's is left out of the contrast set.

    Source: Khosla et al., "Supervised Contrastive Learning" (2020), equation 2 (the sum outside the logarithm), with
    a teacher's features to contrast with, as knowledge distillation with supervised contrastive learning (KD-SCL) does
    for process monitoring. Public implementations contrast two views of the rows of one model, leave a row itself out
    of its contrast set and positives, and multiply the loss by temperature / base temperature; here the teacher's
    feature of the row itself is a positive, and nothing is multiplied.

    Args:
        temperature: of the cosines; a smaller one stresses the hardest rows.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature
        self.check_options()

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, target: Tensor) -> Tensor:
        """Loss of features ``[B, ...]`` with the true classes ``target`` ``[B]``."""
        require_rows(student, teacher)
        student, teacher = student.flatten(1), teacher.flatten(1)
        if student.shape != teacher.shape:
            raise ValueError(
                f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must be equal [B, D] when flattened"
            )
        if target.shape != student.shape[:1] or target.is_floating_point():
            raise ValueError(f"target {tuple(target.shape)} ({target.dtype}) must be classes of shape [B]")
        if not student.numel():
            return no_relations(student)
        # The largest magnitude goes first: squares of large features would leave float32.
        (student, student_active), (teacher, teacher_active) = (
            unit_rows(unit_scale(each, 1)) for each in (student, teacher)
        )
        # Without a contrast set nothing counts, and the scores stay finite.
        contrast = teacher_active | ~teacher_active.any()
        scores = torch.where(contrast, student @ teacher.T / self.temperature, -torch.inf)
        log = F.log_softmax(scores, dim=1)
        positive = (target[:, None] == target[None, :]) & teacher_active
        number = positive.sum(1)
        per_row = -torch.where(positive, log, 0.0).sum(1) / number.clamp(min=1)
        return torch.where(student_active & (number > 0), per_row, 0.0).mean()
