"""An objective between the predicted Gaussians of a batch: how they relate to each other. It keeps to what
`stillhouse.objectives.prediction` says of all objectives."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.objectives.functional import (
    Objective,
    full_precision,
    no_relations,
    require_same_shape,
)
from stillhouse.ranges import Range


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
