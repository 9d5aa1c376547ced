"""Heads of audio tagging and of classification."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stillhouse.heads import Multiclass, Multilabel
from stillhouse.types import Batch


def d_prime(auc: float, pairs: int) -> float:
    """Separation of two unit normal distributions that have this ROC AUC: ``sqrt(2) * ndtri(auc)``.

    The measure of AudioSet's papers (Gemmeke et al. 2017, section 4). A perfect AUC, whose d-prime is infinite, counts
    as if half of one pair were in the wrong order.

    Args:
        auc: in [0, 1].
        pairs: pairs of a positive and a negative row behind it; at least 1.
    """
    half = 0.5 / max(pairs, 1)
    clipped = torch.tensor(min(max(auc, half), 1.0 - half), dtype=torch.float64)
    return math.sqrt(2.0) * float(torch.special.ndtri(clipped))


class Tagging(Multilabel):
    """Any number of tags on a clip; logits ``[B, L]``, target 0/1 ``[B, L]`` (shares between them under mixup).

    Metrics: ``map`` (primary; mean over tags of the average precision), ``macro_auc`` and ``d_prime`` of it.
    """

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class; ``macro_auc`` and ``d_prime`` are left out when no tag has rows with and without it.

        Raises:
            DataError: the split is empty, or no tag has a positive row.
            TrainingError: a prediction is not finite.
        """
        found = super().evaluate(prediction, rows)
        if "macro_auc" in found:
            positives = rows["target"].double().sum(dim=0)
            pairs = float((positives * (len(rows["target"]) - positives)).sum())
            found["d_prime"] = d_prime(found["macro_auc"], int(pairs))
        return found


class Classification(Multiclass):
    """One class of several; logits ``[B, C]``, target class ``[B]`` (shares ``[B, C]`` under mixup).

    Metrics: ``accuracy`` (primary), ``macro_f1``, ``auc``, ``ece``, ``nll``, and ``top5`` where there are more than ten
    classes.
    """

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class.

        Raises:
            DataError: the split is empty, or a label is outside the declared classes.
            TrainingError: a prediction is not finite.
        """
        found = super().evaluate(prediction, rows)
        if self.outputs > 10:
            best = prediction.topk(5, dim=1).indices
            found["top5"] = float((best == rows["target"].long()[:, None]).any(dim=1).double().mean())
        return found
