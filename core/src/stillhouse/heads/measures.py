"""Measures of predictions that several heads compute, from tensors."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

BINS = 15


def multiclass_ece(probability: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Expected calibration error of probabilities ``[N, C]`` for classes ``[N]``: the mean over equally wide
    bins of |accuracy - confidence|, weighted by the rows of each bin (Guo et al. 2017, equation 3)."""
    confidence, choice = probability.max(dim=1)
    return _ece(confidence, choice == target, bins)


def binary_ece(probability: Tensor, target: Tensor, bins: int = BINS) -> float:
    """The same for the probability ``[N]`` of the positive class and its frequency in 0/1 targets ``[N]``."""
    return _ece(probability, target, bins)


def _ece(confidence: Tensor, correct: Tensor, bins: int) -> float:
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    confident, right = confidence.double().cpu().numpy(), correct.double().cpu().numpy()
    of_bin = np.digitize(confident, edges, right=True)  # without its lower edge, as in the paper
    apart = np.bincount(of_bin, right - confident, minlength=bins)
    return float(np.abs(apart).sum() / len(confident))


def average_precision(score: Tensor, target: Tensor) -> float:
    """Average precision of scores ``[N]``, any numbers, for 0/1 targets ``[N]`` of which one at least is 1; to twelve
    decimals, so that of two perfect orders none is better by the rounding of a sum."""
    return round(float(average_precision_score(target.cpu().numpy(), score.cpu().numpy())), 12)


def roc_auc(score: Tensor, target: Tensor) -> float:
    """Area under the ROC curve of scores ``[N]``, any numbers, for 0/1 targets ``[N]`` of both kinds: the share of
    pairs of a 1 and a 0 in which the 1 has the larger score, ties by half (Hanley and McNeil 1982)."""
    yes, told = target.cpu().numpy() == 1, score.cpu().numpy()
    positive, negative = told[yes], np.sort(told[~yes])
    # Twice the pairs in which the positive is larger, and once those in which it is equal.
    larger = sum(int(negative.searchsorted(positive, side).sum()) for side in ("left", "right"))
    return larger / 2 / (len(positive) * len(negative))


def confusion(choice: Tensor, target: Tensor, classes: int) -> Tensor:
    """Rows of each class (first axis) by the class that is told ``[classes, classes]``, of choices and targets
    ``[N]``."""
    pairs = classes * target.long() + choice
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).double()


def f1(choice: Tensor, target: Tensor, classes: int) -> Tensor:
    """F1 of each class ``[classes]``, of choices and targets ``[N]``; NaN where it neither occurs nor is told."""
    table = confusion(choice, target, classes)
    return 2 * table.diag() / (table.sum(dim=0) + table.sum(dim=1))


def recall(choice: Tensor, target: Tensor, classes: int) -> Tensor:
    """Share of the rows of each class that are told as such ``[classes]``, of choices and targets ``[N]``; NaN where it
    has no rows."""
    table = confusion(choice, target, classes)
    return table.diag() / table.sum(dim=1)
