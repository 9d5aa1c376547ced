"""What scikit-learn's gradient boosting lacks: several quantiles at once, and weights behind a transformation."""

from __future__ import annotations

import warnings
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline


class QuantileBoosting(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """One histogram gradient boosting with quantile loss for each level; predicts ``[N, levels]``.

    Args:
        boosting: the model to clone for each level.
        levels: quantiles, in (0, 1).
    """

    def __init__(self, boosting: HistGradientBoostingRegressor, levels: tuple[float, ...]) -> None:
        self.boosting = boosting
        self.levels = levels

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit on features ``[N, F]`` and targets ``[N]``."""
        self.estimators_ = [
            clone(self.boosting).set_params(loss="quantile", quantile=level).fit(X, y) for level in self.levels
        ]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Quantiles ``[N, levels]`` for features ``[N, F]``."""
        return np.column_stack([model.predict(X) for model in self.estimators_])


class WeightedPipeline(Pipeline):  # type: ignore[misc]
    """A pipeline whose last step takes ``sample_weight``, so that it learns from soft targets like any classifier."""

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> Self:
        """Fit all steps; the weights ``[N]`` are the last one's."""
        with warnings.catch_warnings():  # a column that is constant, as a rare level in a fold is, does no harm
            warnings.filterwarnings("ignore", message="Feature .* is constant")
            return super().fit(X, y, **{f"{self.steps[-1][0]}__sample_weight": sample_weight})
