"""A teacher's distributions over tokens, computed once: the likeliest of each position and the mass of the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import IncompatibleError, RunFolderError
from stillhouse.forwarding import all_rows, most_tokens, to_device
from stillhouse.kinds import SEQUENCE_IGNORE, OutputKind
from stillhouse.storage import read_json, replacing_folder, write_json
from stillhouse.teachers.cached import RowIndex
from stillhouse.teachers.source import TeacherSource
from stillhouse.types import Batch, Outputs, Split

SHARD = 2**18
"""Tokens of a file."""
LEAST_REST = 1e-7
"""Smallest mass of the rest: a token that the teacher all but excludes costs a reverse divergence much, not all."""


def write_top_k(
    source: TeacherSource,
    split: Split,
    folder: Path,
    *,
    key: str,
    k: int,
    outputs: int,
    device: torch.device | None = None,
) -> None:
    """Store the k likeliest tokens of each valid position, their log probabilities and the log of the rest's mass.

    ``cache.json`` has ``bytes_per_token``, ``error`` (the mean over tokens of the KL divergence of what is read back
    from the whole distribution, in nats, at temperature 1) and ``rest`` (the mean mass of the rest).

    Args:
        source: the teacher; logits ``[B, T, V]``.
        split: the rows; ``target`` ``[B, T]`` says which positions are valid.
        folder: made, or replaced, as a whole.
        key: see `stillhouse.teachers.cached.cache_key`; checked when it is opened.
        k: tokens that are kept of each position, at most V.
        outputs: V.
        device: where the teacher computes; the CPU by default.

    Raises:
        IncompatibleError: rows are augmented at random, or have no ``target``.
    """
    if split.stochastic or "target" not in split.row(0):
        raise IncompatibleError(
            "the distributions of rows that are augmented at random, or have no target, cannot be stored",
            where="teacher.top_k",
            fix="leave teacher.top_k out: the teacher is then asked at every step",
        )
    began, k = time.perf_counter(), min(k, outputs)
    lengths = (split.columns(["target"])["target"] != SEQUENCE_IGNORE).sum(dim=1)
    total, written, error, rest = int(lengths.sum()), 0, 0.0, 0.0
    starts = torch.zeros_like(lengths)
    with replacing_folder(folder) as temporary:
        shards = [
            _make(temporary, number, min(SHARD, total - number * SHARD), k, outputs)
            for number in range(-(-total // SHARD))
        ]
        for positions, batch in all_rows(split, tokens=most_tokens(OutputKind.SEQUENCE, outputs)):
            logits = source(to_device(batch, device) if device is not None else batch).prediction
            valid = batch["target"] != SEQUENCE_IGNORE
            counts = valid.sum(dim=1)
            starts[positions] = written + counts.cumsum(0) - counts
            logs = logits[valid.to(logits.device)].float().log_softmax(dim=1).cpu()
            found, kept = _shortened(logs, k)
            back = _whole(found, *kept, outputs).log_softmax(dim=1)
            error += float((logs.exp() * (logs - back)).sum(dtype=torch.float64))
            rest += float(kept[1].exp().sum(dtype=torch.float64)) if k < outputs else 0.0
            for shard, here, at in _places(torch.arange(written, written + len(logs))):
                for array, value in zip(shards[shard], (found, *kept), strict=True):
                    array[at.numpy()] = value[here].numpy()
            written += len(logs)
        for arrays in shards:
            for array in arrays:
                array.flush()
        for name, values in (("index", split.index()), ("starts", starts), ("lengths", lengths)):
            np.save(temporary / f"{name}.npy", values.numpy())
        facts: dict[str, Any] = {"key": key, "rows": len(split), "tokens": total, "k": k, "outputs": outputs}
        facts |= {"bytes_per_token": k * (_id_type(outputs).itemsize + 2) + 2, "error": error / max(total, 1)}
        write_json(
            temporary / "cache.json", {**facts, "rest": rest / max(total, 1), "seconds": time.perf_counter() - began}
        )


def _id_type(outputs: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if outputs <= 2**16 else np.int32)


def _shortened(logs: Tensor, k: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Ids ``[N, k]``, and in half precision their log probabilities ``[N, k]`` and the rest's log mass ``[N]``."""
    top, ids = logs.topk(k, dim=1)
    rest = logs.scatter(1, ids, -math.inf).logsumexp(dim=1).clamp_min(math.log(LEAST_REST))
    return ids.to(torch.int32), (top.clamp_min(-60_000.0).half(), rest.half())


def _whole(ids: Tensor, top: Tensor, rest: Tensor, outputs: int) -> Tensor:
    """Log probabilities ``[N, V]`` up to rounding: the rest's mass is spread evenly."""
    others = max(outputs - ids.shape[1], 1)
    found = (rest.float() - math.log(others)).unsqueeze(1).expand(-1, outputs).clone()
    return found.scatter_(1, ids.long(), top.float())


def _places(tokens: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each file that holds some of ``tokens`` ``[N]``: its number, which of them these are, and where they are."""
    shards = tokens // SHARD
    for shard in torch.unique(shards).tolist():
        here = (shards == shard).nonzero().flatten()
        yield int(shard), here, tokens[here] - int(shard) * SHARD


def _names(number: int) -> list[str]:
    return [f"{part}-{number:05}.npy" for part in ("ids", "logs", "rest")]


def _make(folder: Path, number: int, tokens: int, k: int, outputs: int) -> list[np.memmap]:
    kinds = ((_id_type(outputs), (tokens, k)), (np.dtype(np.float16), (tokens, k)), (np.dtype(np.float16), (tokens,)))
    return [
        np.lib.format.open_memmap(folder / name, mode="w+", dtype=dtype, shape=shape)
        for name, (dtype, shape) in zip(_names(number), kinds, strict=True)
    ]


class TopKTeacher:
    """Distributions that `write_top_k` stored, found by the batch's ``index``; memory-mapped.

    What it says of a batch are log probabilities ``[B, T, V]``, with the rest's mass spread evenly over the tokens that
    were not kept, and zeros at positions that are not valid.

    Args:
        folders: caches with different rows, each with the key that its content must have.

    Raises:
        RunFolderError: missing, damaged, or made from other rows or another teacher.
    """

    def __init__(self, *folders: tuple[Path, str]) -> None:
        self._parts = [_Part(folder, key) for folder, key in folders]
        self._rows = RowIndex(torch.cat([part.index for part in self._parts]))
        self._ends = torch.tensor([len(part.index) for part in self._parts]).cumsum(0)
        self.facts = [part.facts for part in self._parts]

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`.

        Raises:
            RunFolderError: a row is not in the cache, or has another number of valid positions than it had.
        """
        rows, target = self._rows(batch["index"]), batch["target"].cpu()
        owner = torch.bucketize(rows, self._ends, right=True)
        outputs = self.facts[0]["outputs"]
        found = torch.zeros(*target.shape, outputs)
        for number, part in enumerate(self._parts):
            here = (owner == number).nonzero().flatten()
            if len(here):
                before = int(self._ends[number]) - len(part.index)
                valid = target[here] != SEQUENCE_IGNORE
                filled = torch.zeros(*valid.shape, outputs)
                filled[valid] = part.gather(rows[here] - before, valid.sum(dim=1))
                found[here] = filled
        return Outputs(found.to(batch["index"].device))


class _Part:
    def __init__(self, folder: Path, key: str) -> None:
        self.facts = read_json(folder / "cache.json")
        if self.facts["key"] != key:
            raise RunFolderError(
                "the stored distributions were made from other rows or another teacher",
                where=str(folder),
                fix="remove the folder; it is made again",
            )
        self._where = str(folder)
        try:
            self.index, self._starts, self._lengths = (
                torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("index", "starts", "lengths")
            )
            self._shards = [
                [np.load(folder / name, mmap_mode="r") for name in _names(number)]
                for number in range(-(-self.facts["tokens"] // SHARD))
            ]
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"the stored distributions are damaged: {error}",
                where=self._where,
                fix="remove the folder; it is made again",
            ) from error

    def gather(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Log probabilities of all valid positions of some rows, one row behind the other ``[N, V]``."""
        if not torch.equal(self._lengths[rows], counts):
            raise RunFolderError(
                "rows have another number of valid positions than when the teacher was asked",
                where=self._where,
                fix="remove the folder; it is made again",
            )
        tokens = torch.cat(
            [torch.arange(int(self._starts[row]), int(self._starts[row] + self._lengths[row])) for row in rows]
        )
        k = self.facts["k"]
        ids, top, rest = (
            torch.empty(len(tokens), k, dtype=torch.int64),
            torch.empty(len(tokens), k),
            torch.empty(len(tokens)),
        )
        for shard, here, at in _places(tokens):
            for array, into in zip(self._shards[shard], (ids, top, rest), strict=True):
                into[here] = torch.from_numpy(np.asarray(array[at.numpy()]).astype(into.numpy().dtype))
        return _whole(ids, top, rest, self.facts["outputs"])
