"""Simple references of the field: what a network must be better than to be worth its cost."""

from __future__ import annotations

import numpy as np

from stillhouse.types import Estimator, Task
from stillhouse_medicine.text import PAD


def tfidf_logistic(task: Task, *, C: float = 10.0, ngrams: int = 2, max_iter: int = 100) -> Estimator:
    """Logistic regression on the TF-IDF of a question's words and their sequences (scikit-learn): what the words alone
    tell. Nothing of it is random, so that all seeds give the same figures.

    Args:
        task: what the framework gives.
        C: inverse of the strength of the L2 penalty.
        ngrams: longest sequence of words that is counted.
        max_iter: most iterations of the solver.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    pipeline: Estimator = make_pipeline(
        FunctionTransformer(as_texts),
        TfidfVectorizer(
            ngram_range=(1, ngrams), sublinear_tf=True, token_pattern=r"\S+", lowercase=False, dtype=np.float32
        ),
        LogisticRegression(C=C, max_iter=max_iter),
    )
    return pipeline


def as_texts(numbers: np.ndarray) -> list[str]:
    """Word numbers ``[N, L]`` as one text a row, padding left out: what a text vectorizer of scikit-learn takes."""
    return [" ".join(str(number) for number in row if number != PAD) for row in numbers.tolist()]
