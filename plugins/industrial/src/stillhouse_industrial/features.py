"""Features of windows for estimators."""

from __future__ import annotations

import numpy as np

from stillhouse.types import Batch


def window_statistics(batch: Batch) -> np.ndarray:
    """Statistics of each sensor over the window: ``[N, 6 * S]``, float32, from ``signal`` ``[N, T, S]``.

    In this order for all sensors each: mean, standard deviation, least-squares slope a cycle, last value,
    mean of the last third, and change from the first third to the last.
    """
    return np.concatenate(statistics(batch["signal"].numpy().astype(np.float64)), axis=1).astype(np.float32)


def statistics(signal: np.ndarray) -> list[np.ndarray]:
    """The six statistics of `window_statistics`, each ``[N, S]``, of windows ``[N, T, S]``."""
    length = signal.shape[1]
    third = max(1, length // 3)
    mean = signal.mean(axis=1)
    time = np.arange(length) - (length - 1) / 2
    slope = np.einsum("t,nts->ns", time, signal) / max((time**2).sum(), 1.0)
    late = signal[:, -third:].mean(axis=1)
    return [mean, signal.std(axis=1), slope, signal[:, -1], late, late - signal[:, :third].mean(axis=1)]
