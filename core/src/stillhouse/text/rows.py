"""Rows of token ids of different lengths, padded batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stillhouse.types import Batch, Split

INPUTS = ("tokens", "mask")


class TextSplit(Split):
    """Texts as token ids. A batch has ``tokens`` ``[B, T]`` int64 and ``mask`` ``[B, T]`` bool, true where a token is;
    T is the longest row of that batch.

    Args:
        tokens: ids of each row, at least one.
        columns: what else a row has, tensors with rows first; ``index`` is added (0, 1, ...) when missing.
        groups: see `Split`.
        times: see `Split`.
        pad: id that stands where the mask is false.

    Raises:
        ValueError: the columns differ in length, or a row has no token.
    """

    def __init__(
        self,
        tokens: Sequence[Sequence[int]],
        columns: Mapping[str, Tensor],
        *,
        groups: Sequence[str] | None = None,
        times: Sequence[float] | None = None,
        pad: int = 0,
    ) -> None:
        self._columns = {"index": torch.arange(len(tokens)), **columns}
        sizes = {"tokens": len(tokens), **{name: len(column) for name, column in self._columns.items()}}
        sizes |= {name: len(given) for name, given in (("groups", groups), ("times", times)) if given is not None}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns differ in length: {sizes}")
        self.lengths = [len(row) for row in tokens]
        if 0 in self.lengths:
            raise ValueError(f"row {self.lengths.index(0)} has no token")
        # All rows behind each other: the memory of a split is that of its tokens, however long the longest row.
        self._tokens = torch.tensor([token for row in tokens for token in row], dtype=torch.int32)
        self._lengths = torch.tensor(self.lengths, dtype=torch.int64)
        self._starts = self._lengths.cumsum(0) - self._lengths
        self.groups, self.times, self._pad = groups, times, pad

    def __len__(self) -> int:
        return len(self.lengths or ())

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`; ``tokens`` and ``mask`` have the row's own length."""
        start, length = int(self._starts[position]), int(self._lengths[position])
        return {
            "tokens": self._tokens[start : start + length].long(),
            "mask": torch.ones(length, dtype=torch.bool),
            **{name: column[position] for name, column in self._columns.items()},
        }

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split.batch`; padded to the longest of these rows."""
        where = torch.as_tensor(positions, dtype=torch.int64)
        return {**self._padded(where), **{name: column[where] for name, column in self._columns.items()}}

    def _padded(self, where: Tensor) -> Batch:
        lengths = self._lengths[where].unsqueeze(1)
        steps = torch.arange(int(lengths.max()) if len(where) else 0)
        mask = steps < lengths
        at = (self._starts[where].unsqueeze(1) + steps).clamp_max(len(self._tokens) - 1)
        return {"tokens": torch.where(mask, self._tokens[at].long(), self._pad), "mask": mask}

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """See `Split.columns`; only where the inputs are asked for are rows padded."""
        if names is None:
            return self.batch(range(len(self)))
        padded = self._padded(torch.arange(len(self))) if set(names) & set(INPUTS) else {}
        return {name: padded[name] if name in padded else self._columns[name] for name in names}

    def index(self) -> Tensor:
        """See `Split.index`."""
        return self._columns["index"]

    def fingerprint(self) -> str:
        """SHA-256 over tokens, lengths, and names, dtypes, shapes and bytes of the columns."""
        digest = hashlib.sha256()
        for name, column in sorted({"tokens": self._tokens, "lengths": self._lengths, **self._columns}.items()):
            digest.update(f"{name}:{column.dtype}:{tuple(column.shape)};".encode())
            digest.update(column.contiguous().numpy().tobytes())
        return digest.hexdigest()
