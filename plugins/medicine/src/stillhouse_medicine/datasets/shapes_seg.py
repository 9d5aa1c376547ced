"""Simulated segmentation: drawn scans with the masks of body and lesions."""

from __future__ import annotations

import numpy as np
import torch

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_medicine.augment import augmentation
from stillhouse_medicine.datasets.drawing import SHAPES, Lesion, body, paint
from stillhouse_medicine.datasets.labelled import Labels, build
from stillhouse_medicine.datasets.reader import ImageReader
from stillhouse_medicine.images import numpy_images


def shapes_seg_sim(
    context: DataContext,
    *,
    images: int = 400,
    size: int = 48,
    noise: float = 0.15,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Drawn scans with one to three lesions, little brighter or darker than the body; classes are background, body and
    lesion.

    Args:
        context: the seed of the scans.
        images: scans.
        size: side of a scan in pixels.
        noise: standard deviation of the noise over a scan, of the range of brightness.
        val_fraction: share of the scans for validation.
        test_fraction: share of the scans for test.
        augment: random changes of training scans and their masks: shift, rotate, scale, contrast, noise, mirror.

    Raises:
        DataError: there are too few scans, or too small ones.
    """
    counts = {"val": round(val_fraction * images), "test": round(test_fraction * images)}
    counts["train"] = images - sum(counts.values())
    if min(counts.values()) < 1 or size < 16:
        raise DataError(f"{images} scans of {size} pixels are too few or too small", fix="more, of at least 16 pixels")
    random = np.random.default_rng(context.seed)
    pictures, labels, first = {}, {}, 0
    for part in ("train", "val", "test"):
        drawn = [_scan(size, noise, random) for _ in range(counts[part])]
        pictures[part] = numpy_images([scan[None] for scan, _ in drawn])
        target = torch.from_numpy(np.stack([mask for _, mask in drawn])).long()
        labels[part] = Labels(target, torch.arange(first, first + len(drawn)))
        first += len(drawn)
    splits = build(
        pictures,
        labels,
        classes=("background", "body", "lesion"),
        task="segmentation",
        augment=augmentation(augment),
        description="simulated scans with lesions",
        simulated=True,
    )
    reader = ImageReader(size=size, colour=False)
    return Splits(info=splits.info, train=splits.train, val=splits.val, test=splits.test, reader=reader)


def _scan(size: int, noise: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    inside = body(size, random)
    lesions = [
        Lesion(
            shape=str(random.choice(SHAPES)),
            x=random.uniform(0.28, 0.72),
            y=random.uniform(0.28, 0.72),
            radius=random.uniform(0.07, 0.15),
            level=0.45 + float(random.choice([-1, 1])) * random.uniform(0.22, 0.4),
        )
        for _ in range(int(random.integers(1, 4)))
    ]
    mask = inside.astype(np.uint8)
    for lesion in lesions:
        mask[lesion.inside(size)] = 2
    return paint(inside, lesions, random, noise), mask
