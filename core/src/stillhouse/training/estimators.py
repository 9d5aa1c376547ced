"""Fitting estimators: on labels, and on a teacher's soft targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.types import SOFTENED, Estimator, Task


def fit_hard(estimator: Estimator, features: np.ndarray, target: Tensor, task: Task) -> None:
    """Fit on labels. A regressor learns classes as probabilities 0 and 1, one column each.

    Args:
        estimator: unfitted.
        features: ``[N, F]``.
        target: as in `stillhouse.kinds`.
        task: kind and width of the prediction.
    """
    if task.kind is OutputKind.MULTICLASS and not hasattr(estimator, "predict_proba"):
        target = torch.nn.functional.one_hot(target.long(), task.outputs).double()
    estimator.fit(features, _labels(target))


def fit_distilled(
    estimator: Any,
    features: np.ndarray,
    target: Tensor,
    teacher: Tensor,
    *,
    kind: OutputKind,
    alpha: float,
    temperature: float = 1.0,
) -> None:
    """Fit on ``alpha * label + (1 - alpha) * teacher``, the minimiser of equation (2) for estimators.

    A regressor gets the mixed target (values; probabilities for classification). A classifier gets each row once per
    class, weighted with the mixed probability, which is cross-entropy against soft targets (Hinton et al. 2015) for
    every learner that takes ``sample_weight``. Rows behind the labelled ones have the teacher's output only. At a
    temperature T it learns answers at T, as equation (2) compares them; its own at 1 are their T-th powers, normalised
    (`stillhouse.types.SOFTENED`).

    Args:
        estimator: unfitted.
        features: ``[N + U, F]``, labelled rows first.
        target: labels of the first ``N`` rows.
        teacher: predictions of all ``N + U`` rows (logits or values).
        kind: the head's output kind.
        alpha: share of the labels.
        temperature: softens the teacher's probabilities; noted on the estimator.

    Raises:
        IncompatibleError: the output kind has no such form (sequences, maps), or a classifier takes no sample weights.
    """
    labelled = len(target)
    soft = teacher.double()
    if kind is OutputKind.REGRESSION:
        mixed = soft.clone()
        mixed[:labelled] = alpha * target.double().reshape(labelled, -1) + (1 - alpha) * soft[:labelled]
        estimator.fit(features, _labels(mixed))
        return
    if temperature != 1.0:
        setattr(estimator, SOFTENED, temperature)
    if kind is OutputKind.MULTICLASS:
        probabilities = torch.softmax(soft / temperature, dim=1)
        hard = torch.nn.functional.one_hot(target, soft.shape[1]).double()
    elif kind in (OutputKind.BINARY, OutputKind.MULTILABEL):
        probabilities = torch.sigmoid(soft / temperature)
        hard = target.double().reshape(labelled, -1)
    else:
        raise IncompatibleError(
            f"an estimator cannot learn {kind} soft targets",
            where="student",
            fix="choose a network as student",
        )
    mixed = probabilities.clone()
    mixed[:labelled] = alpha * hard + (1 - alpha) * probabilities[:labelled]
    if not hasattr(estimator, "predict_proba"):
        estimator.fit(features, _labels(mixed))
        return
    if kind is OutputKind.MULTILABEL:
        raise IncompatibleError(
            "a multilabel classifier takes no soft targets",
            where="student",
            fix="choose a regressor, or a network",
        )
    if kind is OutputKind.BINARY:
        mixed = torch.cat([1 - mixed, mixed], dim=1)
    classes = mixed.shape[1]
    weights = mixed.flatten().numpy()
    kept = weights > 1e-9
    repeated = np.repeat(features, classes, axis=0)[kept]
    labels = np.tile(np.arange(classes), len(features))[kept]
    try:
        estimator.fit(repeated, labels, sample_weight=weights[kept])
    except TypeError as error:
        raise IncompatibleError(
            f"{type(estimator).__name__} takes no sample_weight, which soft targets need",
            where="student",
            fix="choose another estimator",
        ) from error


def _labels(target: Tensor) -> np.ndarray:
    values: np.ndarray = target.numpy()
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
