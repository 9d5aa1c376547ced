"""Objectives that contrast rows: what belongs together is drawn together, the labels saying what does."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.objectives.functional import full_precision, require_positive, unit_scale


class SupervisedContrastive(nn.Module):
    """Each student feature is drawn to the teacher's features of its own class, and away from those of other classes.

    ``-1/|P(i)| sum_{p in P(i)} log softmax_a(cos(student_i, teacher_a) / temperature)[p]``, ``P(i)`` the rows of row
    i's class, itself included: the teacher's features are the contrast set. A batch of one, or of one row a class that
    the student matches, still has a positive: its own teacher feature. Unlike the other objectives between features it
    is not zero, nor its gradient, where student and teacher agree.

    Shapes: ``[B, ...]``, flattened, of equal width (an adapter makes them equal); ``target`` ``[B]``, classes.
    Reduction: mean over rows; 0 for a batch of one.

    Source: Khosla et al., "Supervised Contrastive Learning" (2020), equation 2 (the sum outside the logarithm), with
    a teacher's features to contrast with, as knowledge distillation with supervised contrastive learning (KD-SCL) does
    for process monitoring.

    Args:
        temperature: of the cosines; a smaller one stresses the hardest rows.
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, target: Tensor) -> Tensor:
        """Loss of features ``[B, ...]`` with the true classes ``target`` ``[B]``."""
        student, teacher = student.flatten(1), teacher.flatten(1)
        if student.shape != teacher.shape:
            raise ValueError(
                f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must be equal [B, D] when flattened"
            )
        if target.shape != student.shape[:1] or target.is_floating_point():
            raise ValueError(f"target {tuple(target.shape)} ({target.dtype}) must be classes of shape [B]")
        # The largest magnitude goes first: squares of large features would leave float32.
        mine, theirs = (F.normalize(unit_scale(each, 1), p=2, dim=1) for each in (student, teacher))
        log = F.log_softmax(mine @ theirs.T / self.temperature, dim=1)
        alike = (target[:, None] == target[None, :]).to(log.dtype)
        return -((log * alike).sum(1) / alike.sum(1)).mean()
