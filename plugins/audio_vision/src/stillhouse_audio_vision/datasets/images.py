"""Images: scikit-learn's digits, CIFAR-10 and CIFAR-100 through torchvision, and the user's folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.datasets.utils import check_integrity

from stillhouse.data.folders import check_image_size, class_folders
from stillhouse.data.splitting import split_rows
from stillhouse.errors import DataError, OptionError
from stillhouse.types import DataContext, Splits
from stillhouse_audio_vision.datasets.reader import IMAGE_SUFFIXES, read_image
from stillhouse_audio_vision.datasets.rows import image_splits

CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


def digit_images() -> tuple[Tensor, np.ndarray]:
    """scikit-learn's 1,797 digits (part of UCI's Optical Recognition of Handwritten Digits): bytes ``[N, 1, 8, 8]`` and
    classes ``[N]``."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(np.round(found.images * (255.0 / 16.0)).astype(np.uint8))
    return images[:, None], found.target.astype(np.int64)


def digits(
    context: DataContext,
    *,
    val_fraction: float = 0.2,
    test_fraction: float = 0.4,
    labelled: float = 1.0,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Handwritten digits of 8 x 8 pixels, real and shipped with scikit-learn; a random split, class by class.

    Args:
        context: the seed of the split.
        val_fraction: share of the 1,797 images for validation.
        test_fraction: share for test.
        labelled: share of the training images that have a label; the others feed soft losses only.
        augment: random changes of training rows: mixup (alpha), crop (pixels of padding), flip (probability), rotate
            (degrees).

    Raises:
        OptionError: an option is out of range.
    """
    if not 0 < labelled <= 1:
        raise OptionError(f"labelled is {labelled}", where="dataset 'digits'", fix="above 0, at most 1")
    images, target = digit_images()
    fractions = {"val": val_fraction, "test": test_fraction}
    chosen = split_rows(len(target), fractions, context.seed, classes=target)
    if labelled < 1:
        train = chosen["train"]
        parts = split_rows(len(train), {"labelled": labelled}, context.seed, classes=target[train])
        chosen |= {"train": train[parts["labelled"]], "unlabelled": train[parts["train"]]}
    return image_splits(
        {split: _rows(images, target, at) for split, at in chosen.items()},
        name="digits",
        classes=[str(digit) for digit in range(10)],
        augment=augment,
        description="Handwritten digits of 8 x 8 pixels (UCI, through scikit-learn)",
    )


def cifar10(
    context: DataContext,
    *,
    val_fraction: float = 0.1,
    rows: int | None = None,
    augment: dict[str, float] | None = None,
) -> Splits:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images of 32 x 32 pixels in ten classes, the official test set.

    Args:
        context: where the files are, whether they may be downloaded, and the seed of the split.
        val_fraction: share of the official training images held out for validation, class by class.
        rows: use only so many of the official training images, class by class; all by default.
        augment: random changes of training rows: mixup (alpha), crop (pixels of padding), flip (probability), rotate
            (degrees).

    Raises:
        DataError: the files are missing or not the official ones.
        OptionError: an option is out of range.
    """
    return _cifar(context, torchvision.datasets.CIFAR10, "cifar10", val_fraction, rows, augment)


def cifar100(
    context: DataContext,
    *,
    val_fraction: float = 0.1,
    rows: int | None = None,
    augment: dict[str, float] | None = None,
) -> Splits:
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 images of 32 x 32 pixels in a hundred classes, the official test
    set.

    Args:
        context: where the files are, whether they may be downloaded, and the seed of the split.
        val_fraction: share of the official training images held out for validation, class by class.
        rows: use only so many of the official training images, class by class; all by default.
        augment: random changes of training rows: mixup (alpha), crop (pixels of padding), flip (probability), rotate
            (degrees).

    Raises:
        DataError: the files are missing or not the official ones.
        OptionError: an option is out of range.
    """
    return _cifar(context, torchvision.datasets.CIFAR100, "cifar100", val_fraction, rows, augment)


def _cifar(
    context: DataContext,
    source: Any,
    name: str,
    val_fraction: float,
    rows: int | None,
    augment: dict[str, float] | None,
) -> Splits:
    folder = context.root / source.base_folder
    archive = context.root / source.filename
    try:
        # torchvision compares checksums before it opens a file: these files are pickles, and only the official ones are
        # ever loaded.
        fetch = context.download and not folder.is_dir()
        unpack = archive.is_file() and check_integrity(str(archive), source.tgz_md5)
        train, test = (source(str(context.root), train=part, download=fetch or unpack) for part in (True, False))
    except (RuntimeError, OSError) as error:  # missing, altered, or no network
        what = f"the files in '{folder}' are not the official ones" if folder.is_dir() else f"{name} is not there"
        raise DataError(
            f"{what}: {str(error).strip().splitlines()[0]}",
            where=str(context.root),
            fix=f"put the official {source.filename} of {CIFAR_PAGE} there (md5 {source.tgz_md5})",
        ) from error
    images, target = _stacked(train), np.array(train.targets, dtype=np.int64)
    kept = np.arange(len(target))
    if rows is not None:
        if not 2 * len(train.classes) <= rows <= len(target):
            raise OptionError(
                f"rows is {rows}", where=f"dataset '{name}'", fix=f"from {2 * len(train.classes)} to {len(target)}"
            )
        if rows < len(target):
            kept = split_rows(len(target), {"kept": rows / len(target)}, context.seed, classes=target)["kept"]
    chosen = split_rows(len(kept), {"val": val_fraction}, context.seed, classes=target[kept])
    parts = {split: _rows(images, target, kept[at]) for split, at in chosen.items()}
    found = np.array(test.targets, dtype=np.int64)
    parts["test"] = _rows(_stacked(test), found, np.arange(len(found)), first_index=len(target))
    return image_splits(
        parts,
        name=name,
        classes=[str(each) for each in train.classes],
        augment=augment,
        description=f"{name.upper().replace('CIFAR', 'CIFAR-')}: images of 32 x 32 pixels, official test set",
    )


def _stacked(data: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))


def image_folder(
    context: DataContext,
    *,
    path: Path,
    size: int = 32,
    colour: bool = True,
    classes: tuple[str, ...] | None = None,
    group: str | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Your images in a folder for each class, drawn class by class; or such folders inside train, val and test.

    Args:
        context: the folder that ``path`` is relative to, and the seed of the split.
        path: the folder, relative to the recipe.
        size: height and width that images are resized to.
        colour: three channels instead of one.
        classes: the classes that may occur; by default those that have a folder.
        group: text in file names at which the name of the group ends, e.g. "_" for scene17_left.png; groups then never
            be in two splits.
        val_fraction: share of the images (or groups) of each class that validation holds out.
        test_fraction: the same for test.
        augment: random changes of training rows: mixup (alpha), crop (pixels of padding), flip (probability), rotate
            (degrees).

    Raises:
        DataError: a folder is missing or empty, a class is not declared, or an image cannot be read.
        LeakageError: the same file is in the folders of two splits.
        OptionError: an option is out of range.
    """
    check_image_size(size)
    root = context.base / path
    fractions = {"val": val_fraction, "test": test_fraction}
    names, found = class_folders(
        root, suffixes=IMAGE_SUFFIXES, fractions=fractions, seed=context.seed, classes=classes, group=group
    )
    parts, first = {}, 0
    for split, each in found.items():
        pictures = [read_image(file, channels=3 if colour else 1, size=(size, size)) for file in each.files]
        index = torch.arange(first, first + len(pictures))
        parts[split] = torch.stack(pictures), torch.tensor(each.target), index
        first += len(pictures)
    return image_splits(
        parts,
        name="image-folder",
        classes=names,
        augment=augment,
        description=f"Images of folder {root.name}",
        groups={split: each.groups for split, each in found.items()},
    )


def _rows(images: Tensor, target: np.ndarray, at: np.ndarray, first_index: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    where = torch.from_numpy(at.astype(np.int64))
    return images[where], torch.from_numpy(target[at]), where + first_index
