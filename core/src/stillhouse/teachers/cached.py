"""A teacher's outputs, computed once per row and then found by row id: memory-mapped, or held in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import IncompatibleError, RunFolderError
from stillhouse.forwarding import all_rows, as_ordered, to_device
from stillhouse.storage import digest, read_json, replacing_folder, write_json
from stillhouse.teachers.source import TeacherSource
from stillhouse.types import Batch, Outputs, Split


def cache_key(*, data: str, teacher: str, taps: tuple[str, ...], members: bool = False) -> str:
    """Key of a cache's content: fingerprint of the rows (their transforms included), of the teacher, its taps, and
    whether its members are kept."""
    return digest({"data": data, "teacher": teacher, "taps": taps, "members": members})


def write_cache(
    source: TeacherSource,
    split: Split,
    folder: Path,
    *,
    key: str,
    device: torch.device | None = None,
    batch_size: int = 512,
    members: bool = False,
) -> None:
    """Store what a source says of every row of a split.

    Args:
        source: the teacher.
        split: the rows; each keeps its ``index``.
        folder: made, or replaced, as a whole.
        key: see `cache_key`; checked when the cache is opened.
        device: where the teacher computes; the CPU by default.
        batch_size: rows per call.
        members: store what each member of an ensemble says, too.

    Raises:
        IncompatibleError: the rows are augmented at random, so stored outputs would be of other inputs than the
            student's; or they differ in length.
    """
    if split.stochastic:
        raise IncompatibleError(
            "teacher outputs of randomly augmented rows cannot be cached: the student would see other inputs",
            where="teacher.cache",
            fix="set teacher.cache: false (the teacher is asked at every step), or switch the augmentation off",
        )
    began = time.perf_counter()
    with replacing_folder(folder) as temporary:
        arrays: dict[str, np.memmap] = {}
        for positions, batch in all_rows(split, batch_size):
            outputs = source(to_device(batch, device) if device is not None else batch)
            entries = {
                "prediction": outputs.prediction,
                **{f"feature {name}": value for name, value in outputs.features.items()},
            }
            if members and outputs.members is not None:
                entries["members"] = outputs.members.transpose(0, 1)  # rows first, as in all arrays
            for name, value in entries.items():
                if split.lengths is not None and value.ndim > 2:
                    raise IncompatibleError(
                        f"the teacher's {name} differs in length from row to row and cannot be cached",
                        where="teacher.cache",
                        fix="leave teacher.cache at auto: the teacher is then asked at every step",
                    )
                if name not in arrays:
                    file = temporary / f"{len(arrays)}.npy"
                    arrays[name] = np.lib.format.open_memmap(
                        file, mode="w+", dtype=np.float32, shape=(len(split), *value.shape[1:])
                    )
                arrays[name][positions.numpy()] = value.float().cpu().numpy()
        for array in arrays.values():
            array.flush()
        np.save(temporary / "index.npy", split.index().numpy())
        facts = {"key": key, "rows": len(split), "arrays": list(arrays), "seconds": time.perf_counter() - began}
        write_json(temporary / "cache.json", facts)


class CachedTeacher:
    """Outputs that `write_cache` stored, found by the batch's ``index``.

    Args:
        folders: caches with different rows (labelled, unlabelled), each with the key that its content must have; the
            key is not checked when it is None.

    Raises:
        RunFolderError: missing, damaged, or made from other rows or another teacher.
    """

    def __init__(self, *folders: tuple[Path, str | None]) -> None:
        self._parts = [_open(folder, key) for folder, key in folders]
        self._rows = RowIndex(torch.cat([rows for rows, _ in self._parts]))
        self._starts = np.cumsum([0, *(len(rows) for rows, _ in self._parts)])

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`.

        Raises:
            RunFolderError: a row is not in the cache.
        """
        rows = self._rows(batch["index"]).numpy()
        device = batch["index"].device
        entries = {name: self._gather(name, rows).to(device) for name in self._parts[0][1]}
        prediction, members = entries.pop("prediction"), entries.pop("members", None)
        features = {name.removeprefix("feature "): value for name, value in entries.items()}
        return Outputs(prediction, features, None if members is None else members.transpose(0, 1))

    def _gather(self, name: str, rows: np.ndarray) -> Tensor:
        first = self._parts[0][1][name]
        gathered = np.empty((len(rows), *first.shape[1:]), dtype=np.float32)
        for (_, arrays), start, end in zip(self._parts, self._starts[:-1], self._starts[1:], strict=True):
            here = (rows >= start) & (rows < end)
            gathered[here] = arrays[name][rows[here] - start]
        return torch.from_numpy(gathered)


def _open(folder: Path, key: str | None) -> tuple[Tensor, dict[str, np.ndarray]]:
    meta = read_json(folder / "cache.json")
    if key is not None and meta["key"] != key:
        raise RunFolderError(
            "the cached teacher outputs were made from other rows or another teacher",
            where=str(folder),
            fix="remove the folder; it is made again",
        )
    try:
        arrays = {
            name: np.load(folder / f"{position}.npy", mmap_mode="r") for position, name in enumerate(meta["arrays"])
        }
        return torch.from_numpy(np.load(folder / "index.npy")), arrays
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"the cached teacher outputs are damaged: {error}",
            where=str(folder),
            fix="remove the folder; it is made again",
        ) from error


class StoredTeacher:
    """Args:
    index: row ids ``[N]``.
    predictions: of these rows, ``[N, ...]``.
    """

    def __init__(self, index: Tensor, predictions: Tensor) -> None:
        self._rows = RowIndex(index)
        self._predictions = predictions

    @classmethod
    def of(cls, source: TeacherSource, splits: Sequence[Split], device: torch.device) -> Self:
        """What a source says of all rows of some splits."""
        found = [
            as_ordered(
                [
                    (positions, source(to_device(batch, device)).prediction.float().cpu())
                    for positions, batch in all_rows(split)
                ]
            )
            for split in splits
        ]
        return cls(torch.cat([split.index() for split in splits]), torch.cat(found))

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`.

        Raises:
            RunFolderError: a row has no stored prediction.
        """
        return Outputs(self._predictions[self._rows(batch["index"])].to(batch["index"].device))


class RowIndex:
    """Positions of row ids.

    Args:
        index: the ids ``[N]``, int64, in the order of the positions.
    """

    def __init__(self, index: Tensor) -> None:
        self._sorted, self._order = torch.sort(index)

    def __call__(self, index: Tensor) -> Tensor:
        """Positions ``[B]`` of the rows ``index`` ``[B]``, on the CPU.

        Raises:
            RunFolderError: a row is not there.
        """
        index = index.cpu()
        at = torch.searchsorted(self._sorted, index).clamp_max(len(self._sorted) - 1)
        missing = index[self._sorted[at] != index]
        if len(missing):
            raise RunFolderError(
                f"row {int(missing[0])} has no stored teacher output",
                where="teacher outputs",
                fix="remove the run's teacher folder; it is made again",
            )
        return self._order[at]
