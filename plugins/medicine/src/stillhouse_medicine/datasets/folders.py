"""The user's own images: a folder for each class, or images with masks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from stillhouse.errors import DataError, LeakageError
from stillhouse.types import DataContext, Splits
from stillhouse_medicine.augment import augmentation
from stillhouse_medicine.datasets.labelled import Labels, build
from stillhouse_medicine.datasets.reader import ImageReader, is_image
from stillhouse_medicine.images import SUFFIXES, numpy_images, read_image, read_mask

PARTS = ("train", "val", "test")


def image_folder(
    context: DataContext,
    *,
    path: Path,
    size: int = 64,
    colour: bool = False,
    group: str | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Your images in a folder for each class; or such folders inside train, val and test.

    Two classes make a binary task (the second in the alphabet is the positive one), more a multiclass task.

    Args:
        context: the folder that ``path`` is relative to, and the seed of the split.
        path: the folder, relative to the recipe.
        size: side of the square image in pixels; the longer side is scaled to it.
        colour: three channels instead of one.
        group: text in file names at which the name of the patient ends, e.g. "_" for p017_left.png; patients then
            never stand in two splits.
        val_fraction: share of the images (or groups) of each class that validation holds out.
        test_fraction: the same for test.
        augment: random changes of training images: shift, rotate, scale, contrast, noise, mirror.

    Raises:
        DataError: folders are missing or empty, an image cannot be read, a split has a class that train lacks.
        LeakageError: folders that are split already hold the same file in two splits.
    """
    root = context.base / path
    _require_folder(root)
    given = all((root / part).is_dir() for part in PARTS)
    classes = _classes(root / "train" if given else root)
    files: dict[str, list[tuple[Path, int]]] = {}
    for part in PARTS if given else ("all",):
        top = root / part if given else root
        unknown = sorted(set(_classes(top)) - set(classes))
        if unknown:
            raise DataError(f"split '{part}' has the class '{unknown[0]}', which train does not have", where=str(top))
        files[part] = [
            (each, number)
            for number, name in enumerate(classes)
            for each in (sorted(p for p in (top / name).rglob("*") if is_image(p)) if (top / name).is_dir() else [])
        ]
    if not given:
        names = _groups([file for file, _ in files["all"]], group)
        where = _draw(names, [number for _, number in files["all"]], val_fraction, test_fraction, context.seed)
        files = {part: [each for each, at in zip(files["all"], where, strict=True) if at == part] for part in PARTS}
    _refuse_empty({part: len(rows) for part, rows in files.items()}, root)
    _refuse_copies({part: [file for file, _ in rows] for part, rows in files.items()}, root)
    task = "binary" if len(classes) == 2 else "multiclass"
    pictures, labels, first = {}, {}, 0
    for part in PARTS:
        pictures[part] = numpy_images([read_image(file, size, colour=colour) for file, _ in files[part]])
        target = torch.tensor([number for _, number in files[part]])
        labels[part] = Labels(
            target.float() if task == "binary" else target,
            torch.arange(first, first + len(target)),
            _groups([file for file, _ in files[part]], group) if group is not None else None,
        )
        first += len(target)
    splits = build(
        pictures,
        labels,
        classes=classes,
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
            never stand in two splits.
        threshold: masks are black and white (0 and 255): every value above 127 is class 1.
        val_fraction: share of the images (or groups) that validation holds out.
        test_fraction: the same for test.
        augment: random changes of training images and their masks: shift, rotate, scale, contrast, noise, mirror.

    Raises:
        DataError: a folder or mask is missing, a file cannot be read, a mask has a value that is no class.
    """
    root = context.base / path
    for folder in (root, root / "images", root / "masks"):
        _require_folder(folder)
    images = sorted(each for each in (root / "images").iterdir() if is_image(each))
    masks = {each.stem: each for each in sorted((root / "masks").iterdir()) if is_image(each)}
    if not images:
        raise DataError("there is no image", where=str(root / "images"), fix=f"files in {', '.join(SUFFIXES)}")
    names = _groups(images, group)
    where = _draw(names, [0] * len(images), val_fraction, test_fraction, context.seed)
    _refuse_empty(Counter(where), root)
    pictures, labels = {}, {}
    for part in PARTS:
        chosen = [at for at, each in enumerate(where) if each == part]
        pictures[part] = numpy_images([read_image(images[at], size, colour=colour) for at in chosen])
        target = [_mask(masks, images[at], root, size, len(classes), threshold) for at in chosen]
        labels[part] = Labels(
            torch.from_numpy(np.stack(target)).long(),
            torch.tensor(chosen),
            [names[at] for at in chosen] if group is not None else None,
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


def _classes(root: Path) -> tuple[str, ...]:
    names = tuple(sorted(each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")))
    if len(names) < 2:
        raise DataError(f"{len(names)} class folder(s) are there", where=str(root), fix="make a folder for each class")
    return names


def _groups(files: Sequence[Path], separator: str | None) -> list[str]:
    """The patient of each file; without a separator the file's content, so that copies stay together."""
    if separator is None:
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    for file in files:
        if separator not in file.stem:
            raise DataError(
                f"the file name '{file.name}' has no '{separator}' that ends the patient's name",
                where=str(file.parent),
                fix="rename the file, or leave dataset.group out",
            )
    return [file.stem.partition(separator)[0] for file in files]


def _refuse_copies(files: Mapping[str, Sequence[Path]], root: Path) -> None:
    seen: dict[str, tuple[str, Path]] = {}
    for part, chosen in files.items():
        for file, content in zip(chosen, _groups(chosen, None), strict=True):
            first_part, first = seen.setdefault(content, (part, file))
            if first_part != part:
                raise LeakageError(
                    f"'{file.relative_to(root)}' of {part} is a copy of '{first.relative_to(root)}' of {first_part}",
                    where=str(root),
                    fix="remove one of them",
                )


def _draw(
    groups: Sequence[str], classes: Sequence[int], val_fraction: float, test_fraction: float, seed: int
) -> list[str]:
    """Split of each row: fractions of the groups of each class, a group by the class of its first row."""
    if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
        raise DataError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave a split empty",
            fix="both above 0, and below 1 together",
        )
    random = np.random.default_rng(seed)
    first = dict(zip(reversed(groups), reversed(classes), strict=True))
    part: dict[str, str] = {}
    for number in sorted(set(first.values())):
        names = sorted(name for name in first if first[name] == number)
        names = [names[at] for at in random.permutation(len(names))]
        test = max(1, round(test_fraction * len(names)))
        val = max(1, round(val_fraction * len(names)))
        for at, name in enumerate(names):
            part[name] = "test" if at < test else "val" if at < test + val else "train"
    return [part[name] for name in groups]


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), fix="correct dataset.path")


def _refuse_empty(counts: dict[str, int], root: Path) -> None:
    for part in PARTS:
        if not counts.get(part):
            raise DataError(
                f"split '{part}' is empty", where=str(root), fix="bring more images, or change the fractions"
            )
