"""Simple references of the field: what a network on sound must be better than."""

from __future__ import annotations

import numpy as np

from stillhouse.components.trees import random_forest
from stillhouse.types import Batch, Estimator, Task

WINDOW, HOP, BANDS = 256, 128, 40
"""Samples of a window of the spectrum and between two, and bands, which grow by the same factor."""


def spectral_forest(task: Task, *, n_estimators: int = 300) -> Estimator:
    """A random forest (scikit-learn) on `spectral_statistics`.

    Args:
        task: gives the seed and the kind of the prediction.
        n_estimators: trees.
    """
    return random_forest(task, n_estimators=n_estimators)


def spectral_statistics(batch: Batch) -> np.ndarray:
    """Mean, standard deviation and mean change over time of the log power in each band: ``[N, 3 * bands]``, float32,
    from ``waveform`` ``[N, T]``. Clips are brought to unit mean power first; a clip shorter than a window is padded."""
    waveform = batch["waveform"].numpy().astype(np.float64)
    waveform = waveform / np.sqrt((waveform**2).mean(axis=1, keepdims=True) + 1e-8)
    if waveform.shape[1] < WINDOW + HOP:
        waveform = np.pad(waveform, ((0, 0), (0, WINDOW + HOP - waveform.shape[1])))
    windows = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW, axis=1)[:, ::HOP]
    edges = np.unique(np.geomspace(1, WINDOW // 2 + 1, BANDS + 1).round().astype(int))
    found = []
    for part in np.array_split(windows, max(1, len(windows) // 64)):
        power = np.abs(np.fft.rfft(part * np.hanning(WINDOW), axis=2)) ** 2
        bands = np.log(np.add.reduceat(power, edges[:-1], axis=2) + 1e-4)
        change = np.abs(np.diff(bands, axis=1)).mean(axis=1)
        found.append(np.concatenate([bands.mean(axis=1), bands.std(axis=1), change], axis=1))
    return np.concatenate(found).astype(np.float32)
