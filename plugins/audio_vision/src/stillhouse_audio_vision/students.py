"""Students for sound and images: small MobileNets and a plain CNN, from a few thousand parameters upwards."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from torch import nn

from stillhouse.components.trees import random_forest
from stillhouse.ranges import Range
from stillhouse.types import Batch, Estimator, Task
from stillhouse_audio_vision.frontend import audio_front, image_front
from stillhouse_audio_vision.networks import AudioNetwork, ImageNetwork, MeanPool, conv_blocks, in_bounds, mobile_blocks


def mobile_cnn(
    task: Task, *, width: Annotated[float, Range(0.125, 1.0, log=True, size=True)] = 0.5, dropout: float = 0.0
) -> nn.Module:
    """A small MobileNet on the log-mel spectrogram, which it computes itself: about 8,000 parameters at width 0.5,
    28,000 at 1, 100,000 at 2.

    Args:
        task: inputs and width of the prediction.
        width: multiplier of all channel counts.
        dropout: share of the embedding dropped while training.

    Raises:
        OptionError: width or dropout is out of range.
        IncompatibleError: the dataset has no sound.
    """
    in_bounds("width", width, 0.1, 4.0, model="mobile-cnn")
    in_bounds("dropout", dropout, 0.0, 0.95, model="mobile-cnn")
    features, last = mobile_blocks(1, width, stem_stride=2)
    return AudioNetwork(audio_front(task.info), features, MeanPool(), last, task.outputs, dropout)


def image_mobile_cnn(
    task: Task, *, width: Annotated[float, Range(0.125, 1.0, log=True, size=True)] = 0.5, dropout: float = 0.0
) -> nn.Module:
    """A small MobileNet on images; the stem keeps the size of images below 64 pixels.

    Args:
        task: inputs and width of the prediction.
        width: multiplier of all channel counts.
        dropout: share of the embedding dropped while training.

    Raises:
        OptionError: width or dropout is out of range.
        IncompatibleError: the dataset has no images.
    """
    in_bounds("width", width, 0.1, 4.0, model="image-mobile-cnn")
    in_bounds("dropout", dropout, 0.0, 0.95, model="image-mobile-cnn")
    front = image_front(task.info)
    channels, height, _ = task.inputs["image"].shape
    features, last = mobile_blocks(channels, width, stem_stride=1 if height < 64 else 2)
    return ImageNetwork(front, features, MeanPool(), last, task.outputs, dropout)


def image_cnn(
    task: Task, *, width: Annotated[int, Range(4, 32, log=True, size=True)] = 8, blocks: int = 2, dropout: float = 0.0
) -> nn.Module:
    """A plain CNN on images: blocks of two 3x3 convolutions, doubling the channels and halving the size.

    Args:
        task: inputs and width of the prediction.
        width: channels of the first block.
        blocks: number of blocks.
        dropout: share of the embedding dropped while training.

    Raises:
        OptionError: an option is out of range.
        IncompatibleError: the dataset has no images.
    """
    in_bounds("width", width, 1, 1024, model="image-cnn")
    in_bounds("blocks", blocks, 1, 6, model="image-cnn")
    in_bounds("dropout", dropout, 0.0, 0.95, model="image-cnn")
    front = image_front(task.info)
    widths = [width * 2**number for number in range(blocks)]
    features = conv_blocks(task.inputs["image"].shape[0], widths)
    return ImageNetwork(front, features, MeanPool(), widths[-1], task.outputs, dropout)


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
