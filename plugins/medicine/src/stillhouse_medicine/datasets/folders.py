"""The user's own images: a folder for each class, or images with masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stillhouse.data.folders import check_image_size, class_folders, draw_files, file_groups, require_folder
from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_medicine.augment import augmentation
from stillhouse_medicine.datasets.labelled import Labels, build
from stillhouse_medicine.datasets.reader import ImageReader, is_image
from stillhouse_medicine.images import SUFFIXES, numpy_images, read_image, read_mask


def image_folder(
    context: DataContext,
    *,
    path: Path,
    size: int = 64,
    colour: bool = False,
    classes: tuple[str, ...] | None = None,
    group: str | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Your images in a folder for each class, drawn class by class; or such folders inside train, val and test.

    Two classes make a binary task (the second in the alphabet, or of ``classes``, is the positive one), more a
    multiclass task.

    Args:
        context: the folder that ``path`` is relative to, and the seed of the split.
        path: the folder, relative to the recipe.
        size: side of the square image in pixels; the longer side is scaled to it.
        colour: three channels instead of one.
        classes: the classes that may occur; by default those that have a folder.
        group: text in file names at which the name of the patient ends, e.g. "_" for p017_left.png; patients then
            never be in two splits.
        val_fraction: share of the images (or groups) of each class that validation holds out.
        test_fraction: the same for test.
        augment: random changes of training images: shift, rotate, scale, contrast, noise, mirror.

    Raises:
        DataError: a folder is missing or empty, a class is not declared, or an image cannot be read.
        LeakageError: the same file is in the folders of two splits.
        OptionError: an option is out of range.
    """
    check_image_size(size)
    root = context.base / path
    fractions = {"val": val_fraction, "test": test_fraction}
    names, found = class_folders(
        root, suffixes=SUFFIXES, fractions=fractions, seed=context.seed, classes=classes, group=group
    )
    task = "binary" if len(names) == 2 else "multiclass"
    pictures, labels, first = {}, {}, 0
    for part, each in found.items():
        pictures[part] = numpy_images([read_image(file, size, colour=colour) for file in each.files])
        target = torch.tensor(each.target)
        index = torch.arange(first, first + len(target))
        labels[part] = Labels(target.float() if task == "binary" else target, index, each.groups)
        first += len(target)
    splits = build(
        pictures,
        labels,
        classes=names,
        task=task,
        augment=augmentation(augment),
        description=f"images of folder {root.name}",
    )
    reader = ImageReader(size=size, colour=colour)
    return Splits(info=splits.info, train=splits.train, val=splits.val, test=splits.test, reader=reader)


def mask_folder(
    context: DataContext,
    *,
    path: Path,
    classes: tuple[str, ...] = ("background", "foreground"),
    size: int = 96,
    colour: bool = False,
    group: str | None = None,
    threshold: bool = False,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Your images in images/ and their masks of the same names (any ending) in masks/.

    A mask is an 8-bit grey or palette image whose values are class numbers; 255 is ignored.

    Args:
        context: the folder that ``path`` is relative to, and the seed of the split.
        path: the folder with images/ and masks/, relative to the recipe.
        classes: names of the classes, background first.
        size: side of the square image in pixels; the longer side is scaled to it, the rest is black background.
        colour: three channels instead of one.
        group: text in file names at which the name of the patient ends, e.g. "_" for p017_slice3.png; patients then
            never be in two splits.
        threshold: masks are black and white (0 and 255): every value above 127 is class 1.
        val_fraction: share of the images (or groups) that validation holds out.
        test_fraction: the same for test.
        augment: random changes of training images and their masks: shift, rotate, scale, contrast, noise, mirror.

    Raises:
        DataError: a folder or mask is missing, a file cannot be read, a mask has a value that is no class.
    """
    check_image_size(size)
    root = context.base / path
    for folder in (root, root / "images", root / "masks"):
        require_folder(folder)
    images = sorted(each for each in (root / "images").iterdir() if is_image(each))
    masks = {each.stem: each for each in sorted((root / "masks").iterdir()) if is_image(each)}
    if not images:
        raise DataError("there is no image", where=str(root / "images"), fix=f"files in {', '.join(SUFFIXES)}")
    groups = file_groups(images, group) if group is not None else None
    fractions = {"val": val_fraction, "test": test_fraction}
    drawn = draw_files(images, fractions, context.seed, group=group, where=root)
    pictures, labels = {}, {}
    for part, chosen in drawn.items():
        pictures[part] = numpy_images([read_image(images[at], size, colour=colour) for at in chosen])
        target = [_mask(masks, images[at], root, size, len(classes), threshold) for at in chosen]
        labels[part] = Labels(
            torch.from_numpy(np.stack(target)).long(),
            torch.from_numpy(chosen),
            [groups[at] for at in chosen] if groups is not None else None,
        )
    splits = build(
        pictures,
        labels,
        classes=classes,
        task="segmentation",
        augment=augmentation(augment),
        description=f"images and masks of folder {root.name}",
    )
    reader = ImageReader(size=size, colour=colour)
    return Splits(info=splits.info, train=splits.train, val=splits.val, test=splits.test, reader=reader)


def _mask(masks: dict[str, Path], image: Path, root: Path, size: int, classes: int, threshold: bool) -> np.ndarray:
    file = masks.get(image.stem)
    if file is None:
        raise DataError(
            f"the image '{image.name}' has no mask",
            where=str(root / "masks"),
            fix=f"put a mask named '{image.stem}' there, e.g. {image.stem}.png",
        )
    values = read_mask(file, size)
    if threshold:
        return (values > 127).astype(np.uint8)
    found = [int(value) for value in np.unique(values) if value >= classes and value != 255]
    if found:
        raise DataError(
            f"the mask '{file.name}' has the value {found[0]}, and {classes} classes are declared",
            where=str(file),
            fix="name all classes in dataset.classes, or set dataset.threshold for black and white masks",
        )
    return values
