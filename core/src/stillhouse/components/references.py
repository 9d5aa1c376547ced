"""Simple references of scikit-learn: what a neural teacher must be better than."""

from __future__ import annotations

from typing import Any

from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.types import Estimator, Task


def pca_linear(task: Task, *, components: float = 0.95, C: float = 1.0, alpha: float = 1.0) -> Estimator:
    """Logistic regression (for values: ridge regression) on the principal components of all inputs, flattened. Nothing
    of it is random, so that all seeds give the same figures.

    Args:
        task: what the framework gives.
        components: share of the variance that is kept, below 1.
        C: inverse of the strength of the L2 penalty, for classes.
        alpha: strength of the L2 penalty, for values.

    Raises:
        IncompatibleError: the task is neither one class of several, nor yes or no, nor values.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    if task.kind not in (OutputKind.MULTICLASS, OutputKind.BINARY, OutputKind.REGRESSION):
        raise IncompatibleError(
            f"model 'pca-linear' cannot predict {task.kind}", where="models of core", fix="use 'core/linear'"
        )
    regresses = task.kind is OutputKind.REGRESSION
    last: Any = Ridge(alpha) if regresses else LogisticRegression(C=C, max_iter=1000)
    pipeline: Estimator = make_pipeline(PCA(components, svd_solver="full", whiten=True), last)
    return pipeline
