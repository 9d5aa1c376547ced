"""What a model is shown of a window: its samples, statistics of them, or their spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch

from stillhouse.errors import DataError
from stillhouse.types import Split, Splits, TensorSpec, TensorSplit
from stillhouse_industrial.datasets.windows import CONSTANT
from stillhouse_industrial.features import statistics

Shown = Literal["raw", "statistics", "spectrum"]
FLOOR = 1e-6
"""Added to the power before its logarithm, in squared standard deviations of the sensor: a silent band stays finite."""


@dataclass(frozen=True)
class Representation:
    """Turns windows ``[N, T, S]`` of standardised signals into what a model is shown ``[N, P, S]``; JSON-ready by
    `state`.

    Args:
        shown: "raw": the samples, ``P = T``; "statistics": mean, standard deviation, slope, last value, mean of the
            last third and change from the first third, ``P = 6``; "spectrum": logarithm of the power at each
            frequency of the discrete Fourier transform but 0, after a Hann window, ``P = T // 2``.
        mean: mean of each number over training windows ``[P, S]``; None for "raw".
        std: its standard deviation ``[P, S]``, 1 where it is constant; None for "raw".
    """

    shown: Shown = "raw"
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    @classmethod
    def fit(cls, shown: Shown, windows: np.ndarray) -> Self:
        """Fit on ``windows`` ``[N, T, S]`` (of training rows, and no others).

        Raises:
            DataError: a window is too short for a spectrum.
        """
        if shown == "raw":
            return cls()
        if shown == "spectrum" and windows.shape[1] < 8:
            raise DataError(
                f"a window of {windows.shape[1]} samples has no spectrum to speak of",
                where="dataset.features",
                fix="set dataset.window to at least 8, and better to some hundred samples of a vibration",
            )
        numbers = _numbers(shown, windows)
        mean, std = numbers.mean(axis=0), numbers.std(axis=0)
        return cls(shown, mean, np.where(std <= CONSTANT * np.maximum(np.abs(mean), 1.0), 1.0, std))

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """See the class; float32."""
        if self.shown == "raw":
            return windows
        standardised: np.ndarray = ((_numbers(self.shown, windows) - self.mean) / self.std).astype(np.float32)
        return standardised

    def state(self) -> dict[str, Any]:
        """Plain lists."""
        if self.mean is None or self.std is None:
            return {"shown": self.shown}
        return {"shown": self.shown, "mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        arrays = {name: np.asarray(state[name], dtype=np.float64) for name in ("mean", "std") if name in state}
        return cls(state["shown"], **arrays)


def _numbers(shown: Shown, windows: np.ndarray) -> np.ndarray:
    signal = windows.astype(np.float64)
    if shown == "statistics":
        return np.stack(statistics(signal), axis=1)
    length = signal.shape[1]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    centred = (signal - signal.mean(axis=1, keepdims=True)) * hann[:, None]
    power = np.abs(np.fft.rfft(centred, axis=1)[:, 1:]) ** 2 / (hann**2).sum()
    logarithm: np.ndarray = np.log(power + FLOOR)
    return logarithm


def represented(splits: Splits, shown: Shown) -> tuple[Splits, Representation]:
    """The splits with ``signal`` as a model is to be shown it, and what new windows need for the same.

    Raises:
        DataError: see `Representation.fit`.
    """
    if shown == "raw":
        return splits, Representation()
    fitted = Representation.fit(shown, splits.train.columns(["signal"])["signal"].numpy())
    made = {name: seen_through(split, fitted) for name, split in splits.named().items()}
    unlabelled = splits.unlabelled
    spec = splits.info.inputs["signal"]
    places = 6 if shown == "statistics" else spec.shape[0] // 2
    info = replace(
        splits.info,
        inputs={"signal": TensorSpec((places, *spec.shape[1:]), spec.dtype)},
        description=f"{splits.info.description}; shown: {shown} of each window",
        meta={**splits.info.meta, "features": shown},
    )
    changed = replace(
        splits, info=info, **made, unlabelled=None if unlabelled is None else seen_through(unlabelled, fitted)
    )
    return changed, fitted


def seen_through(split: Split, fitted: Representation) -> TensorSplit:
    """The rows with ``signal`` as ``fitted`` shows it."""
    columns = split.columns()
    signal = torch.from_numpy(fitted(columns["signal"].numpy()))
    return TensorSplit({**columns, "signal": signal}, groups=split.groups, times=split.times, until=split.until)
