"""A teacher's outputs, computed once per row and then found by row id: memory-mapped, or held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import IncompatibleError, RunFolderError
from stillhouse.forwarding import all_rows, as_ordered, to_device
from stillhouse.teachers.shards import SHARD_ROWS, Fill, Shards, damaged, open_shards
from stillhouse.teachers.source import TeacherSource
from stillhouse.types import Batch, Outputs, Split

VERSION = 2
"""Of what is on disk: stored outputs of another version are made again."""
WHO = "cached teacher outputs"


def cache_key(*, data: str, teacher: str, precision: str = "float32") -> str:
    """Key of a cache's content, in words: fingerprint of the rows (their transforms included) and of the teacher."""
    return f"{precision} outputs, version {VERSION}, of teacher {teacher} for rows {data}"


def entries_of(taps: Sequence[str], members: bool) -> tuple[str, ...]:
    """Names of what is stored of a teacher: its prediction, features of tapped modules, and what members say."""
    return ("prediction", *(f"feature {tap}" for tap in taps), *(["members"] if members else []))


def write_cache(
    source: TeacherSource,
    split: Split,
    folder: Path,
    *,
    key: str,
    device: torch.device | None = None,
    batch_size: int = 512,
    members: bool = False,
    precision: str = "float32",
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Store what a source says of every row of a split; shards that are there with the same key are not made again.

    Args:
        source: the teacher.
        split: the rows; each keeps its ``index``.
        folder: of this split alone; made again where it has another key.
        key: see `cache_key`; checked when the cache is opened.
        device: where the teacher computes; the CPU by default.
        batch_size: rows per call.
        members: store what each member of an ensemble says, too.
        precision: of what is stored, "float32" or "float16".
        shard_rows: rows of a shard, up to the end of a batch.

    Returns:
        the record of all shards: rows, shards, bytes, seconds.

    Raises:
        IncompatibleError: see `check_storable` and `filling`.
    """
    check_storable(split)
    shards = Shards(folder, split, key, rows=shard_rows, batch_size=batch_size)
    fill = filling(source, device=device, members=members, precision=precision, ragged=split.lengths is not None)
    for number in range(len(shards)):
        shards.make(number, fill)
    return shards.finish()


def check_storable(split: Split) -> None:
    """Stored outputs must be of the inputs that the student sees.

    Raises:
        IncompatibleError: the rows are augmented at random.
    """
    if split.stochastic:
        raise IncompatibleError(
            "teacher outputs of randomly augmented rows cannot be cached: the student would see other inputs",
            where="teacher.cache",
            fix="set teacher.cache: false (the teacher is asked at every step), or switch the augmentation off",
        )


def filling(
    source: TeacherSource,
    *,
    device: torch.device | None = None,
    members: bool = False,
    precision: str = "float32",
    ragged: bool = False,
) -> Fill:
    """Writes a shard of what a source says; memory is that of a batch.

    Args:
        source: the teacher.
        device: where it computes; the CPU by default.
        members: store what each member of an ensemble says, too.
        precision: of what is stored.
        ragged: rows differ in length.

    Raises (when it writes):
        IncompatibleError: outputs differ in length from row to row, or are too large for half precision.
    """

    def fill(folder: Path, rows: int, batches: Iterator[tuple[int, Batch]]) -> dict[str, Any]:
        arrays: dict[str, np.memmap] = {}
        for start, batch in batches:
            outputs = source(to_device(batch, device) if device is not None else batch)
            entries = {
                "prediction": outputs.prediction,
                **{f"feature {name}": value for name, value in outputs.features.items()},
            }
            if members and outputs.members is not None:
                entries["members"] = outputs.members.transpose(0, 1)  # rows first, as in all arrays
            for name, value in entries.items():
                # Rows, or rows and members, and what each says of one row: more is one output for each position.
                if ragged and value.ndim > (3 if name == "members" else 2):
                    raise IncompatibleError(
                        f"the teacher's {name} differs in length from row to row and cannot be cached",
                        where="teacher.cache",
                        fix="leave teacher.cache at auto: the teacher is then asked at every step",
                    )
                if name not in arrays:
                    file = folder / f"{len(arrays)}.npy"
                    arrays[name] = np.lib.format.open_memmap(
                        file, mode="w+", dtype=np.dtype(precision), shape=(rows, *value.shape[1:])
                    )
                arrays[name][start : start + len(value)] = _rounded(value, precision, name).cpu().numpy()
        for array in arrays.values():
            array.flush()
        return {"arrays": list(arrays)}

    return fill


def _rounded(value: Tensor, precision: str, name: str) -> Tensor:
    if precision == "float32":
        return value.float()
    short = value.half()
    if bool((short.isinf() & value.isfinite()).any()):
        raise IncompatibleError(
            f"the teacher's {name} reaches {float(value.abs().max()):.3g}, and half precision ends at 65,504",
            where="teacher.cache_precision",
            fix="set teacher.cache_precision: float32",
        )
    return short


class CachedTeacher:
    """Outputs that `write_cache` stored, found by the batch's ``index``; memory-mapped.

    Args:
        folders: caches with different rows (labelled, unlabelled), each with the key that its content must have; the
            key is not checked when it is None.
        entries: what is wanted of them, see `entries_of`; all by default.

    Raises:
        RunFolderError: missing, damaged, or made from other rows or another teacher.
    """

    def __init__(self, *folders: tuple[Path, str | None], entries: Sequence[str] | None = None) -> None:
        self._parts = [part for folder, key in folders for part in _open(folder, key, entries)]
        self._names = list(self._parts[0][1])
        self._rows = RowIndex(torch.cat([rows for rows, _ in self._parts]))
        self._starts = np.cumsum([0, *(len(rows) for rows, _ in self._parts)])

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`.

        Raises:
            RunFolderError: a row is not in the cache.
        """
        rows = self._rows(batch["index"]).numpy()
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        device = batch["index"].device
        entries = {name: self._gather(name, rows, owner).to(device) for name in self._names}
        prediction, members = entries.pop("prediction"), entries.pop("members", None)
        features = {name.removeprefix("feature "): value for name, value in entries.items()}
        return Outputs(prediction, features, None if members is None else members.transpose(0, 1))

    def _gather(self, name: str, rows: np.ndarray, owner: np.ndarray) -> Tensor:
        first = self._parts[0][1][name]
        if len(self._parts) == 1:
            return torch.from_numpy(np.asarray(first[rows], dtype=np.float32))
        gathered = np.empty((len(rows), *first.shape[1:]), dtype=np.float32)
        for part in np.unique(owner):
            here = owner == part
            gathered[here] = self._parts[part][1][name][rows[here] - self._starts[part]]
        return torch.from_numpy(gathered)


def _open(
    folder: Path, key: str | None, entries: Sequence[str] | None
) -> Iterator[tuple[Tensor, dict[str, np.ndarray]]]:
    facts, shards = open_shards(folder, key, WHO)
    try:
        for shard in shards:
            arrays = {
                name: np.load(shard / f"{position}.npy", mmap_mode="r")
                for position, name in enumerate(facts["arrays"])
                if entries is None or name in entries
            }
            yield torch.from_numpy(np.load(shard / "index.npy")), arrays
    except (OSError, ValueError) as error:
        raise damaged(folder, WHO, error) from error


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
