"""Rows of token ids of different lengths, padded batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stillhouse.text.ragged import Ragged
from stillhouse.types import Batch, Split

INPUTS = ("tokens", "mask")


class TextSplit(Split):
    """Texts as token ids. A batch has ``tokens`` ``[B, T]`` int64 and ``mask`` ``[B, T]`` bool, true where a token is;
    T is the longest row of that batch.

    Args:
        tokens: ids of each row, at least one.
        columns: what else a row has, tensors with rows first; ``index`` is added (0, 1, ...) when missing.
        ragged: what else a row has that differs in length from row to row, e.g. a label for each token.
        groups: see `Split`.
        times: see `Split`.
        pad: id that stands where the mask is false.
        names: entries of the ids and of the mask.

    Raises:
        ValueError: the columns differ in length, or a row has no token.
    """

    def __init__(
        self,
        tokens: Sequence[Sequence[int]],
        columns: Mapping[str, Tensor],
        *,
        ragged: Mapping[str, Ragged] | None = None,
        groups: Sequence[str] | None = None,
        times: Sequence[float] | None = None,
        pad: int = 0,
        names: tuple[str, str] = INPUTS,
    ) -> None:
        self._columns = {"index": torch.arange(len(tokens)), **columns}
        self._ragged = dict(ragged or {})
        sizes = {"tokens": len(tokens), **{name: len(column) for name, column in self._columns.items()}}
        sizes |= {name: len(column) for name, column in self._ragged.items()}
        sizes |= {name: len(given) for name, given in (("groups", groups), ("times", times)) if given is not None}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns differ in length: {sizes}")
        self.lengths = [len(row) for row in tokens]
        if 0 in self.lengths:
            raise ValueError(f"row {self.lengths.index(0)} has no token")
        self._tokens = Ragged(tokens, fill=pad)
        self._names = names
        self.groups, self.times = groups, times

    def __len__(self) -> int:
        return len(self._tokens)

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`; ``tokens`` and ``mask`` have the row's own length."""
        tokens = self._tokens.row(position)
        return {
            self._names[0]: tokens,
            self._names[1]: torch.ones(len(tokens), dtype=torch.bool),
            **{name: column.row(position) for name, column in self._ragged.items()},
            **{name: column[position] for name, column in self._columns.items()},
        }

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split.batch`; padded to the longest of these rows."""
        where = torch.as_tensor(positions, dtype=torch.int64)
        return self._gathered(where, (*self._names, *self._ragged, *self._columns))

    def _gathered(self, where: Tensor, names: Sequence[str]) -> Batch:
        found: Batch = {}
        if set(names) & set(self._names):
            found = dict(zip(self._names, self._tokens.batch(where), strict=True))
        for name in names:
            if name in self._ragged:
                found[name] = self._ragged[name].batch(where)[0]
            elif name not in self._names:
                found[name] = self._columns[name][where]
        return {name: found[name] for name in names}

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """See `Split.columns`; only what is asked for is padded."""
        if names is None:
            return self.batch(range(len(self)))
        return self._gathered(torch.arange(len(self)), tuple(names))

    def index(self) -> Tensor:
        """See `Split.index`."""
        return self._columns["index"]

    def fingerprint(self) -> str:
        """SHA-256 over tokens, lengths, and names, dtypes, shapes and bytes of the columns."""
        digest = hashlib.sha256()
        held = {"tokens": self._tokens.values, "lengths": self._tokens.lengths, **self._columns}
        for name, each in self._ragged.items():
            held |= {f"{name} values": each.values, f"{name} lengths": each.lengths}
        for name, column in sorted(held.items()):
            digest.update(f"{name}:{column.dtype}:{tuple(column.shape)};".encode())
            digest.update(column.contiguous().numpy().tobytes())
        return digest.hexdigest()
