"""Images: read from files, and as rows of a split."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stillhouse.errors import DataError
from stillhouse.types import Batch, Split, TensorSplit
from stillhouse_medicine.augment import NONE, Augment

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Names that image files end in."""


def read_image(path: Path, size: int, *, colour: bool, where: str = "") -> np.ndarray:
    """Pixels ``[C, size, size]``, uint8; ``C`` is 3 when ``colour``, else 1.

    The longer side is scaled to ``size`` and the shorter centred on black, so that shapes keep their proportions.

    Args:
        path: the file; any format that Pillow reads, 16-bit grey included.
        size: side in pixels.
        colour: red, green and blue, or grey.
        where: the place that names the file (a row of a table), for errors.

    Raises:
        DataError: the file is missing or is no image that can be read to its end.
    """
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise DataError(
            f"the image '{path.name}' does not exist",
            where=where or str(path.parent),
            fix=f"put it into {path.parent}, or correct the name",
        )
    try:
        with Image.open(path) as opened:
            opened.draft("RGB" if colour else "L", (2 * size, 2 * size))  # JPEG files are decoded near the wanted size
            opened.load()
            picture = _eight_bits(opened).convert("RGB" if colour else "L")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(
            f"the image '{path.name}' cannot be read: {str(error).replace(str(path), path.name)}",
            where=where or str(path),
            fix="get the file again; it is truncated, corrupt or of another format",
        ) from error
    scale = size / max(picture.size)
    within = tuple(max(1, round(side * scale)) for side in picture.size)
    canvas = Image.new(picture.mode, (size, size))
    resized = picture.resize(within, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    canvas.paste(resized, ((size - within[0]) // 2, (size - within[1]) // 2))
    pixels = np.asarray(canvas, dtype=np.uint8)
    return pixels.transpose(2, 0, 1).copy() if colour else pixels[None].copy()


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit and float pictures stretched to 0..255; Pillow would cut them off at 255."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    return Image.fromarray(((values - low) * (255.0 / max(high - low, 1e-12))).round().astype(np.uint8))


def read_mask(path: Path, size: int) -> np.ndarray:
    """Values ``[size, size]`` of a single-channel mask, uint8, framed as `read_image` frames its image.

    Raises:
        DataError: the file is missing, cannot be read, or has colours that are no class numbers.
    """
    if not path.is_file():
        raise DataError(f"there is no mask '{path.name}'", where=str(path.parent), fix="each image needs its mask")
    try:
        with Image.open(path) as opened:
            opened.load()
            picture = opened.copy()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(
            f"the mask '{path.name}' cannot be read: {str(error).replace(str(path), path.name)}",
            where=str(path),
            fix="get the file again; it is truncated, corrupt or of another format",
        ) from error
    if picture.mode not in ("1", "L", "P"):
        raise DataError(
            f"the mask '{path.name}' has mode {picture.mode}, not one value a pixel",
            where=str(path),
            fix="save masks as 8-bit grey or palette images whose values are class numbers (255: ignored)",
        )
    # Mode "1" shows 255 for true; the class number is meant.
    picture = Image.fromarray(np.asarray(picture).astype(np.uint8))
    scale = size / max(picture.size)
    within = tuple(max(1, round(side * scale)) for side in picture.size)
    canvas = Image.new("L", (size, size))
    canvas.paste(picture.resize(within, Image.Resampling.NEAREST), ((size - within[0]) // 2, (size - within[1]) // 2))
    return np.asarray(canvas, dtype=np.uint8).copy()


def numpy_images(pixels: Sequence[np.ndarray]) -> Tensor:
    """Stacked images ``[M, C, H, W]``, uint8."""
    return torch.from_numpy(np.stack(pixels))


class ImageSplit(Split):
    """Rows whose input ``image`` is ``[C, H, W]``, float32 in [0, 1], with the number of its ``picture``.

    Pictures are kept once as bytes, however many rows (questions) ask about each.

    Args:
        pictures: ``[M, C, H, W]``, uint8.
        columns: every other entry, rows first; ``index`` is needed, ``target`` when there are labels.
        picture: number of each row's picture ``[N]``; by default row ``n`` has picture ``n``.
        augment: random changes at training time.
        masks: ``target`` holds class masks ``[N, H, W]``, which move with their image.
        groups: see `Split`.
        auxiliary: see `Split`.
    """

    def __init__(
        self,
        pictures: Tensor,
        columns: Mapping[str, Tensor],
        *,
        picture: Tensor | None = None,
        augment: Augment = NONE,
        masks: bool = False,
        groups: Sequence[str] | None = None,
        auxiliary: Sequence[bool] | None = None,
    ) -> None:
        self._pictures, self._augment, self._masks = pictures, augment, masks
        self._rows = TensorSplit({"picture": torch.arange(len(pictures)) if picture is None else picture, **columns})
        self.stochastic = augment.active
        self.groups, self.auxiliary = groups, auxiliary

    def __len__(self) -> int:
        return len(self._rows)

    def plain(self) -> Split:
        """See `Split.plain`."""
        if not self.stochastic:
            return self
        plain = copy.copy(self)
        plain._augment, plain.stochastic = NONE, False
        return plain

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`."""
        return {name: column[0] for name, column in self.batch([position]).items()}

    def batch(self, positions: Sequence[int]) -> Batch:
        """One gather a column; augmentation is drawn for the batch."""
        rows = dict(self._rows.batch(positions))
        images = self._pictures[rows["picture"]].float() / 255
        if self.stochastic:
            images, masks = self._augment(images, rows["target"] if self._masks else None)
            if masks is not None:
                rows["target"] = masks
        return {"image": images, **rows}

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """See `Split.columns`; pictures are only touched when they are asked for."""
        if names is not None and "image" not in names:
            return self._rows.columns(names)
        return super().columns(names)

    def index(self) -> Tensor:
        """See `Split.index`."""
        return self._rows.index()

    def fingerprint(self) -> str:
        """Hash over the pictures, all other columns and the augmentation."""
        pictures = TensorSplit({"pictures": self._pictures}).fingerprint()
        return hashlib.sha256(f"{pictures}:{self._rows.fingerprint()}:{self._augment}".encode()).hexdigest()
