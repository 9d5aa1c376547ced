"""Objectives that contrast rows: what belongs together is drawn together, the labels saying what does."""

from __future__ import annotations

from typing import Annotated, ClassVar

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
from stillhouse.ranges import Choices, Range


class SupervisedContrastive(Objective):
    """Each student feature is drawn to the teacher's features of its own class, and away from those of other classes.

    ``-1/|P(i)| sum_{p in P(i)} log softmax_a(cos(student_i, teacher_a) / temperature)[p]``, ``P(i)`` the rows of row
    i's class, itself included: the teacher's features are the contrast set. A batch of one, or of one row a class that
    the student matches, still has a positive: its own teacher feature. Unlike the other objectives between features it
    is not zero, nor its gradient, where student and teacher agree.

    Two additions for difficult classes. With ``memory`` the contrast set also holds the teacher's features of rows of
    earlier steps, the last so many that are not in the batch. With ``hard`` below 1 each row keeps of its negatives
    the ``hard`` share that is most like it, and of its positives the ``hard`` share that is least like it (each rounded
    up), and its own; the others are left out of sum and softmax.

    Shapes: ``[B, ...]``, flattened, of equal width (an adapter makes them equal); ``target`` ``[B]``, classes;
    ``index`` ``[B]``, row ids, needed with ``memory``.
    Reduction: mean over rows; 0 for a batch of one. A student's row of zeros has no cosine and adds 0, in loss and
    gradient; a teacher's is left out of the contrast set.

    Source: Khosla et al., "Supervised Contrastive Learning" (2020), equation 2 (the sum outside the logarithm), with
    a teacher's features to contrast with, as knowledge distillation with supervised contrastive learning (KD-SCL) does
    for process monitoring; a memory and hard samples are that method's too, what is remembered and which samples are
    hard is defined here. A teacher that is frozen has no old features: what is remembered is what it would say now
    (where rows are not augmented at random). With several processes only the rows of the first are remembered. Public
    implementations contrast two views of the rows of one model, leave a row itself out
    of its contrast set and positives, and multiply the loss by temperature / base temperature; here the teacher's
    feature of the row itself is a positive, and nothing is multiplied.

    Args:
        temperature: of the cosines; a smaller one stresses the hardest rows.
        memory: how many rows of earlier steps the contrast set has besides the batch; 0 for none.
        hard: share of the hardest positives and negatives that a row keeps.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)
    ids: Tensor
    classes: Tensor
    features: Tensor
    place: Tensor

    def __init__(
        self,
        *,
        temperature: Annotated[float, Range(0.05, 1.0, log=True)] = 0.1,
        memory: Annotated[int, Choices(0, 256, 1024)] = 0,
        hard: Annotated[float, Choices(1.0, 0.5, 0.25)] = 1.0,
    ) -> None:
        super().__init__()
        self.temperature, self.memory, self.hard = temperature, memory, hard
        if memory:
            # The width of the features is known with the first batch; -1 is the id of a place that is still empty.
            self.register_buffer("ids", torch.full((max(memory, 1),), -1))
            self.register_buffer("classes", torch.zeros(max(memory, 1), dtype=torch.int64))
            self.register_buffer("features", torch.empty(max(memory, 1), 0))
            self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.check_options()

    def check_options(self) -> None:
        """As of any objective; ``memory`` is no negative number, and ``hard`` lies in (0, 1]."""
        super().check_options()
        if self.memory < 0:
            raise ValueError(f"memory must be at least 0, not {self.memory}")
        if not 0 < self.hard <= 1:
            raise ValueError(f"hard must lie in (0, 1], not {self.hard}")

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, target: Tensor, index: Tensor | None = None) -> Tensor:
        """Loss of features ``[B, ...]`` with the true classes ``target`` ``[B]``."""
        require_rows(student, teacher)
        student, teacher = student.flatten(1), teacher.flatten(1)
        if student.shape != teacher.shape:
            raise ValueError(
                f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must be equal [B, D] when flattened"
            )
        if target.shape != student.shape[:1] or target.is_floating_point():
            raise ValueError(f"target {tuple(target.shape)} ({target.dtype}) must be classes of shape [B]")
        if self.memory and (index is None or index.shape != target.shape):
            raise ValueError("with a memory, index must be the row ids [B]")
        if not student.numel():
            return no_relations(student)
        # The largest magnitude goes first: squares of large features would leave float32.
        (student, student_active), (teacher, teacher_active) = (
            unit_rows(unit_scale(each, 1)) for each in (student, teacher)
        )
        # Who can be contrasted with, as features, classes, and which of them count.
        others, classes, counts = teacher, target, teacher_active
        if self.memory:
            assert index is not None
            if not self.features.shape[1]:
                self.features = self.features.new_zeros(self.memory, teacher.shape[1])
            old = (self.ids >= 0) & ~torch.isin(self.ids, index)
            others, classes = torch.cat((others, self.features.to(teacher.dtype))), torch.cat((classes, self.classes))
            counts = torch.cat((counts, old))
        # Without a contrast set nothing counts, and the scores stay finite.
        contrast = counts | ~counts.any()
        scores = student @ others.T / self.temperature
        alike = target[:, None] == classes[None, :]
        chosen = contrast.expand_as(scores)
        if self.hard < 1:
            own = torch.eye(len(scores), scores.shape[1], dtype=torch.bool, device=scores.device)
            near = scores.detach()
            chosen = chosen & (
                own | _hardest(-near, alike & ~own & counts, self.hard) | _hardest(near, ~alike & counts, self.hard)
            )
            chosen = chosen | ~chosen.any(1, keepdim=True)
        log = F.log_softmax(torch.where(chosen, scores, -torch.inf), dim=1)
        positive = alike & counts & chosen
        number = positive.sum(1)
        per_row = -torch.where(positive, log, 0.0).sum(1) / number.clamp(min=1)
        if self.memory and self.training:
            self._remember(index, target, teacher, teacher_active)
        return torch.where(student_active & (number > 0), per_row, 0.0).mean()

    @torch.no_grad()
    def _remember(self, index: Tensor | None, target: Tensor, teacher: Tensor, active: Tensor) -> None:
        """Write the batch over the oldest places; a teacher's row of zeros leaves its place empty."""
        assert index is not None
        index, target, teacher, active = (each[-self.memory :] for each in (index, target, teacher, active))
        places = (self.place + torch.arange(len(index), device=index.device)) % self.memory
        # A row has one place: where it stood before is empty from now on.
        self.ids = torch.where(torch.isin(self.ids, index), -1, self.ids)
        self.ids[places] = torch.where(active, index, -1)
        self.classes[places] = target.long()
        self.features[places] = teacher.to(self.features.dtype)
        self.place = (self.place + len(index)) % self.memory


def _hardest(scores: Tensor, among: Tensor, share: float) -> Tensor:
    """Where each row has its ``share`` (rounded up) with the largest ``scores`` ``among`` those that are asked for."""
    order = torch.where(among, scores, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return among & (order < (share * among.sum(1, keepdim=True)).ceil())
