"""Rows that need not fit into memory: columns in NumPy files, of which each batch reads its own rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import DataError
from stillhouse.types import Batch, DataContext, DataInfo, Split, Splits, TensorSpec

CHUNK = 2**26
"""Bytes that are read at a time where a whole column is looked at."""
BESIDE = ("target", "index", "groups", "times", "until")
"""Columns that are no inputs."""
NAMES = ("train", "val", "test")


class ArraysSplit(Split):
    """Rows in a folder with a ``.npy`` file for each column, rows first, named after it. Memory is that of the rows
    that are asked for, and of ``index``, ``groups``, ``times`` and ``until`` where there are such files.

    Args:
        folder: of the split.
        first: id of the first row, where there is no ``index.npy``; the others follow.

    Raises:
        DataError: there is no file, one cannot be read as an array of numbers, or they differ in length.
    """

    def __init__(self, folder: Path, *, first: int = 0) -> None:
        self._files = {path.stem: path for path in sorted(folder.glob("*.npy"))}
        if not self._files:
            raise DataError(
                f"there are no .npy files in '{folder}'",
                where=str(folder),
                fix="save each column with numpy.save, rows first, as NAME.npy",
            )
        arrays = {name: _opened(path) for name, path in self._files.items()}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"the columns differ in length: {lengths}", where=str(folder), fix="save them again")
        self._length, self._first = next(iter(lengths.values())), first
        self.groups = arrays["groups"].tolist() if "groups" in arrays else None
        self.times = arrays["times"].tolist() if "times" in arrays else None
        self.until = arrays["until"].tolist() if "until" in arrays else None
        self._names = [name for name in self._files if name not in ("groups", "times", "until", "index")]

    def __len__(self) -> int:
        return self._length

    def column(self, name: str) -> np.ndarray:
        """A column, mapped: what is read of it stays in memory as long as the array does."""
        return _opened(self._files[name])

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`."""
        return {name: column[0] for name, column in self.batch([position]).items()}

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split.batch`; files are opened for it and closed behind it, so that what was read is given back."""
        return self._gathered(positions, self._names)

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """See `Split.columns`; only these are read."""
        return self._gathered(range(len(self)), self._names if names is None else names)

    def _gathered(self, positions: Sequence[int], names: Sequence[str]) -> Batch:
        straight = isinstance(positions, range) and positions.step == 1
        where: slice | np.ndarray = np.asarray(positions, dtype=np.int64)
        if straight and len(positions):
            where = slice(positions[0], positions[-1] + 1)
        found = {name: torch.from_numpy(np.array(self.column(name)[where])) for name in names if name != "index"}
        if "index" in self._files:
            index = torch.from_numpy(np.array(self.column("index")[where], dtype=np.int64))
        else:
            index = self._first + torch.as_tensor(np.asarray(positions, dtype=np.int64))
        return {**found, "index": index}

    def index(self) -> Tensor:
        """See `Split.index`."""
        return self._gathered(range(len(self)), ())["index"]

    def fingerprint(self) -> str:
        """SHA-256 over names and bytes of all files."""
        digest = hashlib.sha256(f"{self._first};".encode())
        for name, path in self._files.items():
            digest.update(f"{name};".encode())
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()


def _opened(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(
            f"'{path.name}' is not an array of numbers: {error}", where=str(path), fix="save it with numpy.save"
        ) from error
    return found


def arrays(
    context: DataContext,
    *,
    path: Path,
    classes: list[str] | None = None,
    unit: str = "",
) -> Splits:
    """Your own rows as NumPy files, which need not fit into memory.

    ``path`` has the folders ``train``, ``val`` and ``test``, and ``unlabelled`` where there are such rows; each has a
    ``.npy`` file per column: the inputs by the names under which models take them, ``target`` (int64 classes, or
    float32), and as far as there are any ``index`` (ids, unique over all folders), ``groups``, ``times``, ``until``.

    Args:
        context: what the framework gives.
        path: folder, relative to the recipe.
        classes: names of the classes; their numbers by default.
        unit: unit of a target that is a value.

    Raises:
        DataError: a folder or a column is missing, or has another shape than in ``train``.
    """
    folder = context.base / path
    splits: dict[str, ArraysSplit] = {}
    for name in (*NAMES, "unlabelled"):
        if name != "unlabelled" or (folder / name).is_dir():
            splits[name] = ArraysSplit(folder / name, first=sum(map(len, splits.values())))
    train = splits["train"].row(0)
    inputs = {
        name: TensorSpec(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in train.items()
        if name not in BESIDE
    }
    for name, split in splits.items():
        row = split.row(0)
        for entry in inputs:
            if entry not in row or row[entry].shape != train[entry].shape or row[entry].dtype != train[entry].dtype:
                raise DataError(
                    f"'{entry}' of '{name}' is missing, or of another shape or type than in 'train'",
                    where=str(folder / name),
                    fix="save the same columns in all folders",
                )
    if "target" not in train:
        raise DataError("there is no 'target.npy'", where=str(folder / "train"), fix="save the targets of all rows")
    info = described(splits["train"].column("target"), inputs, classes, unit)
    return Splits(
        info=info,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        unlabelled=splits.get("unlabelled"),
    )


def described(target: np.ndarray, inputs: dict[str, TensorSpec], classes: list[str] | None, unit: str) -> DataInfo:
    """What models and heads must know of training rows.

    Args:
        target: whole numbers of classes, or values.
        inputs: by name.
        classes: names of the classes; their numbers by default.
        unit: of values.
    """
    if target.dtype == np.int64 and target.ndim == 1:
        counts = np.bincount(np.asarray(target).clip(0), minlength=len(classes or ()))
        names = tuple(classes) if classes else tuple(str(number) for number in range(len(counts)))
        return DataInfo(inputs=inputs, classes=names, class_counts=tuple(int(each) for each in counts[: len(names)]))
    mean, spread = float(np.mean(target, dtype=np.float64)), float(np.std(target, dtype=np.float64))
    labels = tuple(classes) if classes else None
    return DataInfo(inputs=inputs, classes=labels, unit=unit, target_mean=mean, target_std=spread or 1.0)
