"""A split's teacher outputs in shards: which rows are in which, what of them is there, and each written as a whole."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import RunFolderError
from stillhouse.forwarding import TOKENS, batch_bounds, rows_between
from stillhouse.storage import read_json, replacing_folder, write_json
from stillhouse.types import Batch, Split

SHARD_ROWS = 2**16
"""Rows of a shard, up to the end of the batch that has the last of them."""
PLAN, SHARD, DONE = "plan.json", "shard.json", "cache.json"
"""What a folder was begun with; what is in one shard; what is in all, once they are there."""

Fill = Callable[[Path, int, Iterator[tuple[int, Batch]]], dict[str, Any]]
"""Writes one shard into a folder: given the number of its rows, and its batches, each with the place of its first row
in the shard. It returns facts for the shard's record, ``arrays`` (what is stored, by name) among them."""


class Shards:
    """The shards of one split's outputs in a folder; a folder that was begun keeps its own division into shards.

    Batches are those of `stillhouse.forwarding.all_rows` whatever the shards, so that a row's outputs are the same to
    the bit in shards of any size.

    Args:
        folder: of this split alone; what was made with another key is removed.
        split: the rows.
        key: of rows and teacher, in words.
        rows: of a shard.
        entries: what is to be stored, by name; a folder that has more will do.
        batch_size: rows of a batch.
        tokens: see `stillhouse.forwarding.all_rows`.
        labelled: nothing may be made again unasked, since it took long (``stillhouse label``).

    Raises:
        RunFolderError: the folder has labelled outputs of other rows or another teacher.
    """

    def __init__(
        self,
        folder: Path,
        split: Split,
        key: str,
        *,
        rows: int = SHARD_ROWS,
        entries: Sequence[str] = (),
        batch_size: int = 512,
        tokens: int = TOKENS,
        labelled: bool = False,
    ) -> None:
        self.folder, self.key, self._split = folder, key, split
        plan: dict[str, Any] = {"key": key, "shard_rows": rows, "entries": list(entries), "labelled": labelled}
        path = folder / PLAN
        if path.exists() or folder.exists():
            begun: dict[str, Any] = {"key": "of another version", "entries": [], "labelled": False}
            begun = read_json(path) if path.exists() else begun
            if begun["key"] == key and set(entries) <= set(begun["entries"]):
                plan = begun if begun["labelled"] or not labelled else {**begun, "labelled": True}
            else:
                _refuse_labelled(folder, begun, plan)
                shutil.rmtree(folder)
        if not path.exists() or read_json(path) != plan:
            write_json(path, plan)
        self._order, bounds = batch_bounds(split, batch_size, tokens)
        self._batches: list[list[int]] = []
        for start, end in pairwise(bounds):
            if not self._batches or start - self._batches[-1][0] >= plan["shard_rows"]:
                self._batches.append([start])
            self._batches[-1].append(end)

    def __len__(self) -> int:
        return len(self._batches)

    def place(self, number: int) -> Path:
        """Folder of a shard."""
        return self.folder / f"shard-{number:06}"

    def is_there(self, number: int) -> bool:
        """Whether a shard was written."""
        return (self.place(number) / SHARD).exists()

    @property
    def is_done(self) -> bool:
        """Whether all shards were written and recorded."""
        return (self.folder / DONE).exists()

    def positions(self, number: int) -> Tensor:
        """Positions of a shard's rows in the split ``[N]``, in the order in which they are stored."""
        start, end = self._batches[number][0], self._batches[number][-1]
        return torch.arange(start, end) if self._order is None else self._order[start:end]

    def make(self, number: int, fill: Fill) -> dict[str, Any]:
        """Write a shard, if it is not there; its record."""
        if not self.is_there(number):
            began, bounds, ids = time.perf_counter(), self._batches[number], list[Tensor]()

            def batches() -> Iterator[tuple[int, Batch]]:
                for start, end in pairwise(bounds):
                    _, batch = rows_between(self._split, self._order, start, end)
                    ids.append(batch["index"])
                    yield start - bounds[0], batch

            with replacing_folder(self.place(number)) as temporary:
                facts = fill(temporary, bounds[-1] - bounds[0], batches())
                index = torch.cat(ids).numpy()
                np.save(temporary / "index.npy", index)
                size = sum(each.stat().st_size for each in temporary.iterdir())
                record = {"rows": len(index), "bytes": size, "seconds": time.perf_counter() - began, **facts}
                write_json(temporary / SHARD, record)
        found: dict[str, Any] = read_json(self.place(number) / SHARD)
        return found

    def finish(self, summarise: Callable[[list[dict[str, Any]]], Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Record that all shards are there, with their sums and what ``summarise`` makes of their records."""
        if not self.is_done:
            records = [read_json(self.place(number) / SHARD) for number in range(len(self))]
            sums = {name: sum(each[name] for each in records) for name in ("rows", "bytes", "seconds")}
            facts = {"key": self.key, "shards": len(self), "arrays": records[0]["arrays"] if records else [], **sums}
            write_json(self.folder / DONE, {**facts, **({} if summarise is None else summarise(records))})
        found: dict[str, Any] = read_json(self.folder / DONE)
        return found

    def named(self, number: int) -> str:
        """Which rows a shard has, in words: positions, ids, and the groups (machine, file, patient) of its ends."""
        positions = self.positions(number)
        first, last = int(positions.min()), int(positions.max())
        told = f"rows {first:,} to {last:,}"
        try:
            told += f" (ids {int(self._split.row(first)['index'])} to {int(self._split.row(last)['index'])}"
        except Exception:  # it may be one of these that cannot be read
            return told
        groups = self._split.groups
        return told + (f", from '{groups[first]}' to '{groups[last]}')" if groups is not None else ")")


def _refuse_labelled(folder: Path, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if not begun["labelled"]:
        return
    lacking = [each for each in wanted["entries"] if each not in begun["entries"]]
    what = (
        f"the labelled outputs are {begun['key']}, and this run needs {wanted['key']}"
        if begun["key"] != wanted["key"]
        else f"the labelled outputs have no {lacking[0]}"
    )
    raise RunFolderError(
        what,
        where=str(folder),
        fix="use the recipe that was labelled (recipe.yaml in the run folder), choose another folder with --out, or "
        "remove this one: the teacher is then asked again",
    )


def open_shards(folder: Path, key: str | None, who: str) -> tuple[dict[str, Any], list[Path]]:
    """The record of all shards, and the folder of each.

    Args:
        folder: of one split.
        key: that it must have; not checked when it is None.
        who: what is stored, in the plural.

    Raises:
        RunFolderError: missing, or made from other rows or another teacher.
    """
    facts = read_json(folder / DONE)
    if key is not None and facts["key"] != key:
        raise RunFolderError(
            f"the {who} were made from other rows or another teacher",
            where=str(folder),
            fix="remove the folder; it is made again",
        )
    return facts, [folder / f"shard-{number:06}" for number in range(facts["shards"])]


def damaged(folder: Path, who: str, error: Exception) -> RunFolderError:
    """The error for stored outputs that cannot be read."""
    return RunFolderError(
        f"the {who} are damaged: {error}", where=str(folder), fix="remove the folder; it is made again"
    )
