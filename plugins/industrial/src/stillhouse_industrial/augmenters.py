"""Blended windows: rows without a label on which only the teacher speaks.

A teacher can answer for any window, so that a student may learn its function from more windows than there are labels
(as the augmented sets of Buciluă et al. 2006, "Model compression"). A blend stays close to real windows: the slow trend
of two training windows of similar remaining life, mixed, with the noise of a third.
"""

from __future__ import annotations

import numpy as np
import torch

from stillhouse.types import Augmenter, DataInfo, Split, TensorSplit

NEAR = 0.04
"""How far in the order of targets a blend's partners may lie, as a share of the training rows."""


def blends() -> Augmenter:
    """Windows blended from those of similar remaining life: the slow trend of two, the noise of a third.

    The trend of a window is its least-squares parabola for each sensor, the noise what remains. Partners are near in
    the order of targets.

    Returns:
        the augmenter, for the input ``signal`` ``[T, S]``.
    """

    def augmenter(train: Split, info: DataInfo, count: int, seed: int) -> Split:
        return _blended(train, count, np.random.default_rng(seed))

    return augmenter


def _blended(train: Split, count: int, random: np.random.Generator) -> TensorSplit:
    """``count`` windows blended from the rows of ``train``."""
    rows = train.columns(["signal", "target"])
    signal, target = rows["signal"].numpy(), rows["target"].numpy()
    length, window = signal.shape[:2]
    order = np.lexsort((random.random(length), target))
    rank = np.argsort(order)
    reach = max(1, int(NEAR * length))
    base = random.integers(length, size=count)

    def neighbours() -> np.ndarray:
        found: np.ndarray = order[np.clip(rank[base] + random.integers(-reach, reach + 1, count), 0, length - 1)]
        return found

    partner, noise = neighbours(), neighbours()
    share = random.random((count, 1, 1), dtype=np.float32)
    powers = np.vander(np.linspace(-1.0, 1.0, window), min(3, window))
    smooth = (powers @ np.linalg.pinv(powers)).astype(np.float32)
    trend = np.einsum("uv,nvs->nus", smooth, signal, optimize=True)
    mixed = share * trend[base] + (1 - share) * trend[partner] + (signal - trend)[noise]
    return TensorSplit({"signal": torch.from_numpy(mixed.astype(np.float32))})
