"""The user's files in folders, for each class or to be predicted. Public: datasets of own images share layout, options
and errors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillhouse.data.splitting import split_groups
from stillhouse.errors import DataError, LeakageError, OptionError, nearest

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClassFiles:
    """Files of one split.

    Args:
        files: the files.
        target: class of each file, as a position in the class names.
        groups: group of each file, when files are split by group.
    """

    files: tuple[Path, ...]
    target: tuple[int, ...]
    groups: tuple[str, ...] | None


def class_folders(
    root: Path,
    *,
    suffixes: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    classes: Sequence[str] | None = None,
    group: str | None = None,
) -> tuple[tuple[str, ...], dict[str, ClassFiles]]:
    """Class names, and the files of each split: of folders for each class inside ``train``, ``val`` and ``test``, or
    of folders for each class, drawn class by class; copies of a file then stay in one split.

    Args:
        root: the folder.
        suffixes: what file names end in, in lower case with the dot.
        fractions: share of ``val`` and ``test``, when there are no folders for the splits.
        seed: seed of the draw.
        classes: the classes that may occur; by default those that have a folder (in ``train``).
        group: text in file names at which the name of the group ends; groups are then never divided.

    Raises:
        DataError: folders are missing or empty, a class is not declared, two are called the same but for case and
            blanks, a file is in the folders of two classes, or a file name has no group.
        LeakageError: the same file is in the folders of two splits.
        OptionError: the fractions leave no training files.
    """
    there = [split for split in SPLITS if require_folder(root).joinpath(split).is_dir()]
    if there and there != list(SPLITS):
        missing = next(split for split in SPLITS if split not in there)
        raise DataError(
            f"the folder has '{there[0]}' but not '{missing}'",
            where=str(root),
            fix="bring train, val and test, or none",
        )
    names = tuple(classes or _folders(root / "train" if there else root))
    if len(names) < 2:
        raise DataError(f"{len(names)} class folder(s) are there", where=str(root), fix="make a folder for each class")
    _refuse_same_names(names, root)
    listed = {split: _listed(root / split if there else root, names, suffixes) for split in there or ("all",)}
    for files, target in listed.values():
        _refuse_two_classes(files, target, names)
    if classes is None:
        _refuse_empty(names, listed["train" if there else "all"][1], root / "train" if there else root)
    if there:
        found = {
            split: ClassFiles(files, target, None if group is None else tuple(file_groups(files, group)))
            for split, (files, target) in listed.items()
        }
    else:
        files, target = listed["all"]
        drawn = draw_files(files, fractions, seed, group=group, classes=[names[each] for each in target], where=root)
        found = {
            split: ClassFiles(
                tuple(files[at] for at in positions),
                tuple(target[at] for at in positions),
                None if group is None else tuple(file_groups([files[at] for at in positions], group)),
            )
            for split, positions in drawn.items()
        }
    for split, each in found.items():
        if not each.files:
            raise DataError(f"split '{split}' is empty", where=str(root), fix="bring more files, or raise its fraction")
    if there or group is not None:  # otherwise copies were drawn together
        _refuse_copies({split: each.files for split, each in found.items()}, root)
    return names, found


def draw_files(
    files: Sequence[Path],
    fractions: Mapping[str, float],
    seed: int,
    *,
    where: Path,
    group: str | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Positions of each split, drawn (class by class) so that no group and no copy of a file is in two splits."""
    unit = "file" if group is None else "group"
    return split_groups(file_groups(files, group), fractions, seed, classes=classes, unit=unit, where=str(where))


def file_groups(files: Sequence[Path], separator: str | None) -> list[str]:
    """The group that each file name begins with; without a separator the file's content, the same for copies.

    Raises:
        DataError: a file name lacks the separator.
    """
    if separator is None:
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    for file in files:
        if separator not in file.stem:
            raise DataError(
                f"the file name '{file.name}' has no '{separator}' that ends the group's name",
                where=str(file.parent),
                fix="rename the file, or leave dataset.group out",
            )
    return [file.stem.partition(separator)[0] for file in files]


def check_image_size(size: int) -> None:
    """Check the option ``size`` of a dataset of images.

    Raises:
        OptionError: it is no side of an image.
    """
    if not 4 <= size <= 4096:
        raise OptionError(f"size is {size}", where="dataset.size", fix="from 4 to 4096 pixels")


def require_folder(folder: Path) -> Path:
    """The folder.

    Raises:
        DataError: it does not exist.
    """
    if not folder.is_dir():
        raise DataError("the folder does not exist", where=str(folder), fix="correct dataset.path")
    return folder


def files_to_read(path: Path, suffixes: Sequence[str], *, what: str) -> dict[str, Path]:
    """The files that a reader makes rows of, by name: the one that is given, or those in a folder and below it (it may
    have a folder for each class), in order of their paths within it.

    Args:
        path: a file or a folder.
        suffixes: what file names end in, in lower case with the dot.
        what: files are called in errors, e.g. "image".

    Raises:
        DataError: there is no such file, it has another ending, or the folder has none.
    """
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"the {what} file does not exist", where=str(path), fix="correct the path")
        if path.suffix and path.suffix.lower() not in suffixes:
            raise DataError(
                f"'{path.name}' is no {what} file by its name",
                where=str(path),
                fix=f"give a file that ends in {', '.join(suffixes)}, or a folder of such files",
            )
        return {path.name: path}
    found = {file.relative_to(path).as_posix(): file for file in _visible(path, suffixes)}
    if not found:
        raise DataError(
            f"the folder has no {what} files", where=str(path), fix=f"files that end in {', '.join(suffixes)}"
        )
    return found


def _visible(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files in a folder and below it that are not hidden, in order."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    ]


def _folders(root: Path) -> list[str]:
    return sorted(each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))


def _listed(root: Path, names: Sequence[str], suffixes: Sequence[str]) -> tuple[tuple[Path, ...], tuple[int, ...]]:
    for each in _folders(root):
        if each not in names:
            raise DataError(
                f"the class folder '{each}' is not among the classes", where=str(root), fix=nearest(each, names)
            )
    found = [(file, number) for number, name in enumerate(names) for file in _visible(root / name, suffixes)]
    if not found:
        raise DataError("there are no files", where=str(root), fix=f"files with {', '.join(suffixes)}")
    return tuple(file for file, _ in found), tuple(number for _, number in found)


def _refuse_same_names(names: Sequence[str], root: Path) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.strip().casefold(), name)
        if other != name:
            raise DataError(
                f"the classes '{other}' and '{name}' differ in case or blanks alone",
                where=str(root),
                fix="move the files of one folder to the other, or rename it",
            )


def _refuse_empty(names: Sequence[str], target: Sequence[int], root: Path) -> None:
    for number in sorted(set(range(len(names))) - set(target)):
        raise DataError(
            f"the class folder '{names[number]}' has no files that can be read",
            where=str(root),
            fix="remove the folder, or put files into it",
        )


def _refuse_two_classes(files: Sequence[Path], target: Sequence[int], names: Sequence[str]) -> None:
    seen: dict[str, tuple[int, Path]] = {}
    for file, number, content in zip(files, target, file_groups(files, None), strict=True):
        first, other = seen.setdefault(content, (number, file))
        if first != number:
            raise DataError(
                f"the same file is in two classes: '{names[first]}' has '{other.name}', and '{names[number]}' has "
                f"'{file.name}'",
                where=str(file),
                fix="remove one of them",
            )


def _refuse_copies(files: Mapping[str, Sequence[Path]], root: Path) -> None:
    seen: dict[str, tuple[str, Path]] = {}
    for split, chosen in files.items():
        for file, content in zip(chosen, file_groups(chosen, None), strict=True):
            first_split, first = seen.setdefault(content, (split, file))
            if first_split != split:
                raise LeakageError(
                    f"'{file.relative_to(root)}' of {split} is a copy of '{first.relative_to(root)}' of {first_split}",
                    where=str(root),
                    fix="remove one of them",
                )
