"""The reference that every encoder has to beat: logistic regression on weighted counts of tokens and their pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from stillhouse.errors import OptionError
from stillhouse.text.vocabulary import text_facts
from stillhouse.types import Batch, Estimator, Task


class TfidfLogistic(Pipeline):  # type: ignore[misc]
    """The two steps, ``counts`` and ``logistic``; weights of rows go to the second."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TfidfLogistic:
        """See scikit-learn's ``Pipeline``; ``X`` as `token_words` makes it."""
        fitted: TfidfLogistic = super().fit(
            X, y, **({} if sample_weight is None else {"logistic__sample_weight": sample_weight})
        )
        return fitted


def token_words(batch: Batch) -> np.ndarray:
    """Each row's token ids as words of a text ``[B]``, e.g. ``"101 2023 102"``, without padding."""
    rows = zip(batch["tokens"].tolist(), batch["mask"].tolist(), strict=True)
    return np.array([" ".join(str(token) for token, kept in zip(*row, strict=True) if kept) for row in rows])


def tfidf_logistic(
    task: Task, *, penalty: float = 0.1, pairs: bool = True, least: int = 1, class_weight: str | None = None
) -> Estimator:
    """Logistic regression on TF-IDF of tokens and of pairs of neighbours (scikit-learn).

    Args:
        task: gives the seed.
        penalty: strength of the L2 penalty on the coefficients.
        pairs: count pairs of neighbouring tokens beside tokens.
        least: fewest training rows that a token or pair must be in.
        class_weight: "balanced" weighs classes by the inverse of their frequency.

    Raises:
        OptionError: an option is out of range.
        IncompatibleError: the dataset has no texts.
    """
    text_facts(task, "'core/tfidf-logistic'")
    if penalty <= 0 or least < 1:
        raise OptionError(
            f"penalty is {penalty}, least {least}", where="core/tfidf-logistic", fix="a penalty above 0, least from 1"
        )
    counts: Any = TfidfVectorizer(
        token_pattern=r"\S+", ngram_range=(1, 2 if pairs else 1), min_df=least, sublinear_tf=True, lowercase=False
    )
    logistic = LogisticRegression(C=1 / penalty, max_iter=2000, class_weight=class_weight, random_state=task.seed)
    model: Estimator = TfidfLogistic([("counts", counts), ("logistic", logistic)])
    return model
