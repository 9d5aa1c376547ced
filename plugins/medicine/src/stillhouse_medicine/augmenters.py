"""Pairings: questions asked of other images, rows without an answer on which only the teacher speaks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stillhouse.types import Augmenter, Batch, DataInfo, Split, TensorSplit
from stillhouse_medicine.augment import augmentation
from stillhouse_medicine.images import ImageSplit


def pairings(*, augment: dict[str, float] | None = None) -> Augmenter:
    """Training questions asked of other training images (as the augmented sets of Bucila et al. 2006, "Model
    compression"): the student learns what the teacher says of more than the labelled pairs.

    Each question is asked equally often, of images drawn with equal probability. They are changed at random as those of
    training rows are, unless ``augment`` is given.

    Args:
        augment: changes of the images, as in a dataset's ``augment`` but drawn once: the teacher is asked once.

    Returns:
        the augmenter, for the inputs ``image`` and ``question``.

    Raises:
        OptionError: a change that does not exist, or a size out of range.
    """
    once = augmentation(augment)

    def augmenter(train: Split, info: DataInfo, count: int, seed: int) -> Split:
        names = [name for name in train.row(0) if name not in ("image", "target", "index", "picture")]
        asked = train.columns(names)
        shown = _pictures(train)
        drawn = np.random.default_rng(seed).choice(torch.unique(shown).numpy(), size=count)
        first = {int(picture): row for row, picture in reversed(list(enumerate(shown.tolist())))}
        of = torch.tensor([first[int(picture)] for picture in drawn])
        whose = torch.arange(count) % len(train)
        questions = {name: column[whose] for name, column in asked.items()}
        paired = _Paired(train, questions, of)
        if not once.active:
            return paired
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed = [once(train.batch(part.tolist())["image"])[0] for part in of.split(256)]
        pixels = [(each * 255).round().byte() for each in changed]
        return ImageSplit(torch.cat(pixels), {**questions, "index": torch.arange(count)})

    return augmenter


def _pictures(train: Split) -> Tensor:
    """Number of each row's picture; rows of a split that does not tell have one each."""
    if "picture" in train.row(0):
        return train.columns(["picture"])["picture"]
    return torch.arange(len(train))


class _Paired(Split):
    """Questions in memory, each with the image of some training row."""

    def __init__(self, train: Split, questions: dict[str, Tensor], of: Tensor) -> None:
        self._train, self._rows, self._of = train, TensorSplit(questions), of
        self.stochastic = train.stochastic

    def __len__(self) -> int:
        return len(self._of)

    def row(self, position: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.batch([position]).items()}

    def batch(self, positions: Sequence[int]) -> Batch:
        where = torch.as_tensor(positions, dtype=torch.int64)
        return {**self._rows.batch(positions), "image": self._train.batch(self._of[where].tolist())["image"]}

    def fingerprint(self) -> str:
        parts = f"{self._train.fingerprint()}:{self._rows.fingerprint()}:{self._of.tolist()}"
        return hashlib.sha256(parts.encode()).hexdigest()
