"""Measures that several heads compute: calibration errors, and ranks for measures that go by order."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

BINS = 15


def multiclass_ece(probability: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Expected calibration error of probabilities ``[N, C]`` for classes ``[N]``: the mean over equally wide
    bins of |accuracy - confidence|, weighted by the rows of each bin (Guo et al. 2017, equation 3)."""
    return float(
        multiclass_calibration_error(probability, target, num_classes=probability.shape[1], n_bins=bins, norm="l1")
    )


def binary_ece(probability: Tensor, target: Tensor, bins: int = BINS) -> float:
    """The same for the probability ``[N]`` of the positive class and its frequency in 0/1 targets ``[N]``."""
    return float(binary_calibration_error(probability, target, n_bins=bins, norm="l1"))


def ranks(scores: Tensor) -> Tensor:
    """Scores ``[N]`` as ranks in [0, 1): the same order and the same ties, without the ties that a saturated
    sigmoid adds."""
    position: Tensor = torch.unique(scores, return_inverse=True)[1]
    return position.double() / max(len(scores), 1)
