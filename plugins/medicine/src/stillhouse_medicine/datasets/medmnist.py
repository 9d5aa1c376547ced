"""MedMNIST: standardised medical images for classification (Yang et al., Scientific Data 10:41, 2023)."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from stillhouse.data.downloads import fetch
from stillhouse.errors import DataError, nearest
from stillhouse.types import DataContext, Splits
from stillhouse_medicine.augment import augmentation
from stillhouse_medicine.datasets.labelled import Labels, build, flipped
from stillhouse_medicine.datasets.reader import ImageReader

PARTS = ("train", "val", "test")
HOMEPAGE = "https://medmnist.com"
ARCHIVE = "https://zenodo.org/records/10519652"
PUBLISHED = f"they are published at {ARCHIVE} (see {HOMEPAGE})"
SMALL = "28"
"""Side of the images in files whose name tells none."""


def medmnist(
    context: DataContext,
    *,
    name: str = "pneumoniamnist",
    path: Path | None = None,
    task: Literal["auto", "multiclass", "binary", "multilabel"] = "auto",
    classes: tuple[str, ...] | None = None,
    augment: dict[str, float] | None = None,
    noise: float = 0.0,
) -> Splits:
    """Images and labels of a MedMNIST file with its own train, val and test; the task is the set's.

    Binary sets need the head medicine/binary, multi-class and ordinal ones medicine/multiclass (as MedMNIST judges
    both), multi-label ones medicine/multilabel. The slices of a 3-D set become the channels of the image.

    Args:
        context: where the file is; an official one that is missing is downloaded there (unless downloads are off); the
            seed of noise.
        name: the file's name without .npz: pneumoniamnist, chestmnist_64, organmnist3d, or one of your own making.
        path: another place of the file, relative to the recipe.
        task: what the labels mean; "auto": as the official set says, else as the labels look.
        classes: names of the classes, when the set is not an official one.
        augment: random changes of training images: shift, rotate, scale, contrast, noise, mirror.
        noise: share of training labels made wrong, by the data seed, to study methods for noisy labels; the labels of
            validation and test stay as they are.

    Raises:
        DataError: the file is missing, corrupt, lacks an array, or has labels outside the set's classes.
        OptionError: noise is no share, or the task has several labels a row.
    """
    file = context.base / path if path is not None else context.root / f"{name}.npz"
    base, _, size = (file.stem if path is not None else name).partition("_")
    official = official_sets().get(base)
    if path is None and official is not None and (size or SMALL) in official["md5"]:
        fetch(
            file,
            url=f"{ARCHIVE}/files/{file.name}",
            checksum=f"md5:{official['md5'][size or SMALL]}",
            licence=official["licence"],
            allowed=context.download,
        )
    if not file.is_file():
        there = sorted(each.stem for each in file.parent.glob("*.npz")) if file.parent.is_dir() else []
        raise DataError(
            f"there is no file '{file.name}'",
            where=str(file.parent),
            fix=nearest(name, there) if there else f"put the official file there; {PUBLISHED}",
        )
    arrays = _arrays(file)
    kind = task if task != "auto" else official["task"] if official else _task_of(arrays["train_labels"])
    names = classes or (tuple(official["classes"]) if official else _numbers(kind, arrays["train_labels"]))
    checksum = _checksum(file, official)
    pictures = {part: _pictures(arrays[f"{part}_images"], f"{file}, {part}_images") for part in PARTS}
    first = 0
    labels = {}
    for part in PARTS:
        target = _target(arrays[f"{part}_labels"], kind, names, f"{file}, {part}_labels")
        if len(target) != len(pictures[part]):
            raise DataError(
                f"{len(pictures[part])} images have {len(target)} labels",
                where=f"{file}, {part}",
                fix=f"get the file again; {PUBLISHED}",
            )
        labels[part] = Labels(target, torch.arange(first, first + len(target)))
        first += len(target)
    labels["train"] = flipped(labels["train"], noise, task=kind, classes=len(names), seed=context.seed)
    shapes = {tuple(each.shape[1:]) for each in pictures.values()}
    if len(shapes) > 1:
        raise DataError(f"images of the splits differ in shape: {sorted(shapes)}", where=str(file))
    said = "" if checksum == "official" else " (not the official file)"
    if noise:
        said += f", {noise:.0%} of the training labels made wrong"
    splits = build(
        pictures,
        labels,
        classes=names,
        task=kind,
        augment=augmentation(augment),
        description=f"MedMNIST {file.stem}{said}",
        meta={"set": file.stem, "checksum": checksum},
    )
    channels, size = splits.info.inputs["image"].shape[0], splits.info.inputs["image"].shape[-1]
    reader = ImageReader(size=size, colour=channels == 3) if channels in (1, 3) else None
    return Splits(info=splits.info, train=splits.train, val=splits.val, test=splits.test, reader=reader)


def official_sets() -> Mapping[str, Any]:
    """Task, class names, MD5 by image size, and licence of each official set, by its name."""
    text = resources.files("stillhouse_medicine").joinpath("datasets/medmnist.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _arrays(file: Path) -> dict[str, np.ndarray]:
    wanted = [f"{part}_{what}" for part in PARTS for what in ("images", "labels")]
    try:
        with np.load(file, allow_pickle=False) as opened:
            missing = [name for name in wanted if name not in opened.files]
            if missing:
                raise DataError(
                    f"the file lacks {', '.join(missing)}", where=str(file), fix=f"get the file again; {PUBLISHED}"
                )
            return {name: opened[name] for name in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"the file cannot be read: {error}",
            where=str(file),
            fix=f"get it again, it is truncated or corrupt; {PUBLISHED}",
        ) from error


def _checksum(file: Path, official: Mapping[str, Any] | None) -> str:
    """ "official", "differs" (with a warning) or "unknown"."""
    if official is None:
        return "unknown"
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest in official["md5"].values():
        return "official"
    warnings.warn(
        f"{file.name} is not the official file of MedMNIST (its MD5 is {digest}): figures may not compare "
        "with published ones",
        stacklevel=3,
    )
    return "differs"


def _pictures(images: np.ndarray, where: str) -> torch.Tensor:
    """``[N, C, H, W]``, uint8, from ``[N, H, W]``, ``[N, H, W, 3]`` or ``[N, D, H, W]``."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        raise DataError(
            f"images are {images.dtype} {images.shape}",
            where=where,
            fix="uint8 [N, H, W], [N, H, W, 3] or [N, D, H, W], with at least one image",
        )
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(images))


def _task_of(labels: np.ndarray) -> str:
    if labels.ndim == 2 and labels.shape[1] > 1:
        return "multilabel"
    return "binary" if labels.size and int(labels.max()) <= 1 else "multiclass"


def _numbers(kind: str, labels: np.ndarray) -> tuple[str, ...]:
    count = labels.shape[1] if kind == "multilabel" else max(2, int(labels.max()) + 1 if labels.size else 2)
    return tuple(str(number) for number in range(count))


def _target(labels: np.ndarray, kind: str, classes: tuple[str, ...], where: str) -> torch.Tensor:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels are {labels.dtype}, not integers", where=where, fix="save class numbers")
    if kind == "multilabel":
        if labels.ndim != 2 or labels.shape[1] != len(classes):
            raise DataError(f"labels have shape {labels.shape}, and {len(classes)} labels are declared", where=where)
        top = 1
    else:
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise DataError(f"labels have shape {labels.shape}", where=where, fix="one class number an image")
        top = len(classes) - 1
    bad = np.argwhere((labels < 0) | (labels > top))
    if len(bad):
        row = int(bad[0][0])
        raise DataError(
            f"row {row} has the label {labels[tuple(bad[0])]}, outside 0 to {top}",
            where=where,
            fix="correct the file, or set dataset.task and dataset.classes",
        )
    return torch.from_numpy(labels.astype(np.int64 if kind == "multiclass" else np.float32))
