"""A teacher's distributions over tokens, computed once: the likeliest of each position and the mass of the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import IncompatibleError, RunFolderError
from stillhouse.forwarding import most_tokens, to_device
from stillhouse.kinds import SEQUENCE_IGNORE, OutputKind
from stillhouse.teachers.cached import RowIndex
from stillhouse.teachers.shards import Fill, Shards, damaged, open_shards
from stillhouse.teachers.source import TeacherSource
from stillhouse.types import Batch, Outputs, Split

SHARD = 2**18
"""Tokens of a shard, about."""
LEAST_REST = 1e-7
"""Smallest mass of the rest: a token that the teacher all but excludes costs a reverse divergence much, not all."""
WHO = "stored distributions"
ARRAYS = ("ids", "logs", "rest")


def write_top_k(
    source: TeacherSource,
    split: Split,
    folder: Path,
    *,
    key: str,
    k: int,
    outputs: int,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Store the k likeliest tokens of each valid position, their log probabilities and the log of the rest's mass.

    ``cache.json`` has ``bytes_per_token``, ``error`` (the mean over tokens of the KL divergence of what is read back
    from the whole distribution, in nats, at temperature 1) and ``rest`` (the mean mass of the rest).

    Args:
        source: the teacher; logits ``[B, T, V]``.
        split: the rows; ``target`` ``[B, T]`` says which positions are valid.
        folder: of this split alone; made again where it has another key.
        key: see `stillhouse.teachers.cached.cache_key`; checked when it is opened.
        k: tokens that are kept of each position, at most V.
        outputs: V.
        device: where the teacher computes; the CPU by default.

    Returns:
        the record of all shards.

    Raises:
        IncompatibleError: rows are augmented at random, or have no ``target``.
    """
    shards = shards_of_tokens(folder, split, key, outputs=outputs)
    fill = filling_top_k(source, k=k, outputs=outputs, device=device)
    for number in range(len(shards)):
        shards.make(number, fill)
    return shards.finish(summarise_top_k)


def shards_of_tokens(
    folder: Path, split: Split, key: str, *, outputs: int, rows: int | None = None, labelled: bool = False
) -> Shards:
    """Shards of about `SHARD` tokens, or of ``rows``; see `stillhouse.teachers.shards.Shards`.

    Raises:
        IncompatibleError: rows are augmented at random, or have no ``target``.
    """
    if split.stochastic or "target" not in split.row(0):
        raise IncompatibleError(
            "the distributions of rows that are augmented at random, or have no target, cannot be stored",
            where="teacher.top_k",
            fix="leave teacher.top_k out: the teacher is then asked at every step",
        )
    if rows is None:
        valid = split.columns(["target"])["target"] != SEQUENCE_IGNORE
        rows = max(1, SHARD * len(split) // max(int(valid.sum()), 1))
    tokens = most_tokens(OutputKind.SEQUENCE, outputs)
    return Shards(folder, split, key, rows=rows, tokens=tokens, labelled=labelled)


def filling_top_k(source: TeacherSource, *, k: int, outputs: int, device: torch.device | None = None) -> Fill:
    """Writes a shard of the likeliest tokens, see `write_top_k`; memory is that of a shard."""
    k = min(k, outputs)

    def fill(folder: Path, rows: int, batches: Iterator[tuple[int, Batch]]) -> dict[str, Any]:
        kept: list[tuple[Tensor, ...]] = []
        lengths, error, rest = torch.zeros(rows, dtype=torch.int64), 0.0, 0.0
        for start, batch in batches:
            logits = source(to_device(batch, device) if device is not None else batch).prediction
            valid = batch["target"] != SEQUENCE_IGNORE
            lengths[start : start + len(valid)] = valid.sum(dim=1)
            logs = logits[valid.to(logits.device)].float().log_softmax(dim=1).cpu()
            found, values = _shortened(logs, k)
            back = _whole(found, *values, outputs).log_softmax(dim=1)
            error += float((logs.exp() * (logs - back)).sum(dtype=torch.float64))
            rest += float(values[1].exp().sum(dtype=torch.float64)) if k < outputs else 0.0
            kept.append((found, *values))
        ids, tops, masses = (torch.cat([each[at] for each in kept]).numpy() for at in range(3))
        np.save(folder / "ids.npy", ids.astype(_id_type(outputs)))
        np.save(folder / "logs.npy", tops)
        np.save(folder / "rest.npy", masses)
        np.save(folder / "lengths.npy", lengths.numpy())
        return {"arrays": list(ARRAYS), "tokens": len(ids), "error": error, "rest": rest, "k": k, "outputs": outputs}

    return fill


def summarise_top_k(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all shards leave out, by token."""
    k, outputs = records[0]["k"], records[0]["outputs"]
    tokens, error, rest = (sum(each[name] for each in records) for name in ("tokens", "error", "rest"))
    facts = {"k": k, "outputs": outputs, "tokens": tokens}
    facts |= {"bytes_per_token": k * (_id_type(outputs).itemsize + 2) + 2}
    return {**facts, "error": error / max(tokens, 1), "rest": rest / max(tokens, 1)}


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
        opened = [open_shards(folder, key, WHO) for folder, key in folders]
        self.facts = [facts for facts, _ in opened]
        self._parts = [_Part(shard) for _, shards in opened for shard in shards]
        self._rows = RowIndex(torch.cat([part.index for part in self._parts]))
        self._ends = torch.tensor([len(part.index) for part in self._parts]).cumsum(0)

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`.

        Raises:
            RunFolderError: a row is not in the cache, or has another number of valid positions than it had.
        """
        rows, target = self._rows(batch["index"]), batch["target"].cpu()
        owner = torch.bucketize(rows, self._ends, right=True)
        outputs = self.facts[0]["outputs"]
        found = torch.zeros(*target.shape, outputs)
        for number in torch.unique(owner).tolist():
            part = self._parts[number]
            here = (owner == number).nonzero().flatten()
            before = int(self._ends[number]) - len(part.index)
            valid = target[here] != SEQUENCE_IGNORE
            filled = torch.zeros(*valid.shape, outputs)
            ids, top, rest = part.gather(rows[here] - before, valid.sum(dim=1))
            filled[valid] = _whole(ids, top, rest, outputs)
            found[here] = filled
        return Outputs(found.to(batch["index"].device))


class _Part:
    """One shard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self.index, self._lengths = (
                torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("index", "lengths")
            )
            self._arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS]
        except (OSError, ValueError) as error:
            raise damaged(folder, WHO, error) from error
        self._starts = self._lengths.cumsum(0) - self._lengths

    def gather(self, rows: Tensor, counts: Tensor) -> list[Tensor]:
        """Ids, log probabilities and mass of the rest of all valid positions of some rows, one row behind the other."""
        if not torch.equal(self._lengths[rows], counts):
            raise RunFolderError(
                "rows have another number of valid positions than when the teacher was asked",
                where=str(self._folder),
                fix="remove the folder; it is made again",
            )
        spans = [torch.arange(int(self._starts[row]), int(self._starts[row] + self._lengths[row])) for row in rows]
        tokens, types = torch.cat(spans).numpy(), (np.int64, np.float32, np.float32)
        return [
            torch.from_numpy(np.asarray(array[tokens], dtype=dtype))
            for array, dtype in zip(self._arrays, types, strict=True)
        ]
