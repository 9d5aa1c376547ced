"""A fitted scikit-learn estimator: probabilities become logits, so that objectives see what a network would say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.kinds import OutputKind
from stillhouse.types import SOFTENED, Batch, Outputs, at_one

EPSILON = 1e-6
"""Probabilities are kept this far from 0 and 1: a forest's pure leaf would be an infinite logit."""


class EstimatorTeacher:
    """Args:
    estimator: fitted; classifiers need ``predict_proba``.
    features: from a batch to the array ``[B, F]`` it was fitted on.
    kind: the head's output kind.
    outputs: width of the prediction (classes, labels, values).
    """

    def __init__(
        self, estimator: Any, *, features: Callable[[Batch], np.ndarray], kind: OutputKind, outputs: int
    ) -> None:
        self.estimator, self._features, self._kind, self._outputs = estimator, features, kind, outputs

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`."""
        values = estimator_prediction(self.estimator, self._features(batch), self._kind, self._outputs)
        return Outputs(values.to(batch["index"].device))


def estimator_prediction(estimator: Any, features: np.ndarray, kind: OutputKind, outputs: int) -> Tensor:
    """An estimator's prediction in the shape of `stillhouse.kinds`: ``log p`` (multiclass), the logit of p (binary,
    multilabel), or values (regression); ``[B, outputs]`` float32. A class that it never saw has probability 0.

    A regressor that was fitted on probabilities (a distilled tree) answers for classification as well.
    """
    if kind in (OutputKind.REGRESSION, OutputKind.GAUSSIAN):
        values = np.asarray(estimator.predict(features), dtype=np.float32)
        return torch.from_numpy(values.reshape(len(features), outputs))
    if not hasattr(estimator, "predict_proba"):
        probabilities = np.asarray(estimator.predict(features), dtype=np.float64).reshape(len(features), outputs)
    elif kind is OutputKind.MULTILABEL:
        probabilities = _multilabel(estimator.predict_proba(features), estimator.classes_, outputs)
    else:
        known = np.asarray(estimator.predict_proba(features), dtype=np.float64)
        width = 2 if kind is OutputKind.BINARY else outputs
        probabilities = np.zeros((len(features), width))
        probabilities[:, np.asarray(estimator.classes_, dtype=int)] = known
        if kind is OutputKind.BINARY:
            probabilities = probabilities[:, 1:]
    if kind is OutputKind.MULTICLASS:
        clipped = np.clip(probabilities, EPSILON, None)
        return torch.from_numpy(np.log(at_one(estimator, clipped)).astype(np.float32))
    clipped = np.clip(probabilities, EPSILON, 1 - EPSILON)
    temperature = float(getattr(estimator, SOFTENED, 1.0))  # of a logit a factor, which loses nothing near 0 and 1
    return torch.from_numpy((temperature * (np.log(clipped) - np.log1p(-clipped))).astype(np.float32))


def _multilabel(given: Any, classes: Any, outputs: int) -> np.ndarray:
    """Probability of label = 1, from a list of ``[B, 2]`` arrays (forests) or one array ``[B, L]``."""
    if isinstance(given, list):
        columns = []
        for each, known in zip(given, classes, strict=True):
            where = np.flatnonzero(np.asarray(known) == 1)
            columns.append(each[:, where[0]] if len(where) else np.zeros(len(each)))
        return np.stack(columns, axis=1)
    return np.asarray(given, dtype=np.float64).reshape(-1, outputs)
