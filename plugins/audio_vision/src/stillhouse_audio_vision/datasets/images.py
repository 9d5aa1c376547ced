"""Images: scikit-learn's digits, CIFAR-10 and CIFAR-100 through torchvision, and the user's folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.datasets.utils import check_integrity

from stillhouse.errors import DataError, OptionError
from stillhouse.types import DataContext, Splits
from stillhouse_audio_vision.datasets.reader import IMAGE_SUFFIXES, read_image
from stillhouse_audio_vision.datasets.rows import image_splits, stratified

CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
SPLITS = ("train", "val", "test")


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
    augment: dict[str, float] | None = None,
) -> Splits:
    """Handwritten digits of 8 x 8 pixels, real and shipped with scikit-learn; a random split, class by class.

    Args:
        context: the seed of the split.
        val_fraction: share of the 1,797 images for validation.
        test_fraction: share for test.
        augment: random changes of training rows: mixup (alpha), crop (pixels of padding), flip (probability), rotate
            (degrees).

    Raises:
        OptionError: an option is out of range.
    """
    images, target = digit_images()
    chosen = stratified(target, {"val": val_fraction, "test": test_fraction}, context.seed, name="digits")
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
            kept = stratified(target, {"kept": rows / len(target)}, context.seed, name=name)["kept"]
    chosen = stratified(target[kept], {"val": val_fraction}, context.seed, name=name)
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
    grey: bool = False,
    classes: tuple[str, ...] | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    augment: dict[str, float] | None = None,
) -> Splits:
    """The user's own images, one folder a class, as torchvision's ``ImageFolder`` has them.

    With the folders ``train``, ``val`` and ``test`` above the class folders the split is theirs; otherwise images are
    split at random, class by class.

    Args:
        context: what relative paths are relative to, and the seed of the split.
        path: the folder.
        size: height and width that images are resized to.
        grey: use one channel.
        classes: the classes that may occur; by default those that have a folder.
        val_fraction: share for validation, when there are no split folders.
        test_fraction: share for test, when there are no split folders.
        augment: random changes of training rows: mixup (alpha), crop (pixels of padding), flip (probability), rotate
            (degrees).

    Raises:
        DataError: the folder or a split folder is missing or empty, a class is not declared, or an image is unreadable.
        OptionError: an option is out of range.
    """
    if not 4 <= size <= 1024:
        raise OptionError(f"size is {size}", where="dataset 'image-folder'", fix="from 4 to 1024 pixels")
    root = context.base / path
    if not root.is_dir():
        raise DataError("the folder does not exist", where=str(root), fix="correct 'path'")
    there = [split for split in SPLITS if (root / split).is_dir()]
    if there and there != list(SPLITS):
        missing = sorted(set(SPLITS) - set(there))
        raise DataError(
            f"the folder has '{there[0]}' but not '{missing[0]}'",
            where=str(root),
            fix="bring train, val and test, or none",
        )
    sources = [root / split for split in there] or [root]
    names = list(classes) if classes is not None else sorted({each.name for one in sources for each in _folders(one)})
    listed = [_listed(one, names) for one in sources]
    samples = [sample for one in listed for sample in one]
    channels = 1 if grey else 3
    images = torch.stack([read_image(Path(file), channels=channels, size=(size, size)) for file, _ in samples])
    target = np.array([each for _, each in samples], dtype=np.int64)
    if there:
        bounds = np.cumsum([0, *map(len, listed)])
        chosen = {split: np.arange(*bounds[at : at + 2]) for at, split in enumerate(SPLITS)}
    else:
        chosen = stratified(target, {"val": val_fraction, "test": test_fraction}, context.seed, name="image-folder")
    return image_splits(
        {split: _rows(images, target, at) for split, at in chosen.items()},
        name="image-folder",
        classes=names,
        augment=augment,
        description=f"Images of '{Path(path).name}'",
    )


def _folders(root: Path) -> list[Path]:
    return sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))


def _listed(root: Path, names: list[str]) -> list[tuple[str, int]]:
    """Files and classes of one folder of class folders.

    Raises:
        DataError: there are no class folders, one is not declared, or there are no images.
    """
    for each in _folders(root):
        if each.name not in names:
            raise DataError(
                f"the class folder '{each.name}' is not among the declared classes",
                where=str(root),
                fix=", ".join(names),
            )
    try:
        found: list[tuple[str, int]] = torchvision.datasets.folder.make_dataset(
            str(root), {name: at for at, name in enumerate(names)}, extensions=IMAGE_SUFFIXES, allow_empty=True
        )
    except (ValueError, FileNotFoundError) as error:
        raise DataError(
            "the folder has no class folders", where=str(root), fix="one folder a class, with images"
        ) from error
    if not found:
        raise DataError("the folder has no images", where=str(root), fix=f"files with {', '.join(IMAGE_SUFFIXES)}")
    return found


def _rows(images: Tensor, target: np.ndarray, at: np.ndarray, first_index: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    where = torch.from_numpy(at.astype(np.int64))
    return images[where], torch.from_numpy(target[at]), where + first_index
