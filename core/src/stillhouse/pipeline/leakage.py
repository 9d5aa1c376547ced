"""What gives rows away: copies of them in another split, and inputs that are the target."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from stillhouse.data.splitting import spread_positions
from stillhouse.errors import LeakageError
from stillhouse.types import Split, Splits


@dataclass(frozen=True)
class Copies:
    """Rows of one split whose inputs are those of rows of another, to the last bit.

    Attributes:
        split: the split whose rows are looked for, ``"test"`` or ``"val"``.
        among: the split that they are looked for in, ``"train"`` or ``"val"``.
        count: how many of them are there.
        rows: rows of ``split``.
        twins: share of the training rows that have a twin among the other training rows: what is to be expected of
            fresh rows too, where inputs take few values.
    """

    split: str
    among: str
    count: int
    rows: int
    twins: float

    @property
    def are_most(self) -> bool:
        """Most rows are copies, and far more than inputs that take few values explain."""
        return 2 * self.count > self.rows and self.count / self.rows > 2 * self.twins

    @property
    def are_too_many(self) -> bool:
        """More than fresh rows would show by chance: four standard deviations above what `twins` lets expect."""
        expected = self.rows * self.twins
        return self.count > expected + 4 * math.sqrt(expected * (1 - self.twins))

    def __str__(self) -> str:
        names = {"train": "training", "val": "validation"}
        return (
            f"{self.count} of {self.rows} {names.get(self.split, self.split)} rows have inputs that are in the "
            f"{names[self.among]} rows to the last bit"
        )


def copied_rows(splits: Splits, limit_bytes: int = 400_000_000) -> list[Copies]:
    """Rows that are in two splits by content, whatever their ids: test and validation rows among the training rows,
    test rows among the validation rows. Empty where there are none, and where the rows are too large to look."""
    names = list(splits.info.inputs)
    first = splits.train.row(0)
    per_row = sum(first[name].numel() * first[name].element_size() for name in names)
    if per_row * sum(map(len, splits.named().values())) > limit_bytes:
        return []
    keys = {name: row_hashes(split, names) for name, split in splits.named().items()}
    times = Counter(keys["train"])
    # One more than was counted, so that a small split without twins does not promise that there are none.
    twins = (sum(count for count in times.values() if count > 1) + 1) / (len(keys["train"]) + 2)
    found = []
    for split, among in (("test", "train"), ("val", "train"), ("test", "val")):
        known = set(keys[among])
        if count := sum(key in known for key in keys[split]):
            found.append(Copies(split, among, count, len(keys[split]), twins))
    return found


HASHED = 2**14
"""Rows whose bytes are laid side by side at a time."""


def row_hashes(split: Split, names: Sequence[str]) -> list[int]:
    """A hash of these inputs of each row, without padding."""
    if split.lengths is not None:  # compared as they are: padding depends on the split that they are in
        rows = (split.row(at) for at in range(len(split)))
        return [hash(b"".join(row[name].numpy().tobytes() for name in names)) for row in rows]
    columns, found = split.columns(names), list[int]()
    for start in range(0, len(split), HASHED):
        parts = [columns[name][start : start + HASHED].contiguous().numpy() for name in names]
        flat = np.concatenate([part.reshape(len(part), -1).view(np.uint8) for part in parts], axis=1)
        width, data = flat.shape[1], flat.tobytes()
        found += [hash(data[at : at + width]) for at in range(0, len(data), width)]
    return found


def refuse_copies(copies: Sequence[Copies], *, name: str) -> None:
    """A dataset whose test or validation is mostly a copy of rows that are learned from measures nothing.

    Raises:
        LeakageError: see above.
    """
    for each in copies:
        if each.are_most:
            raise LeakageError(
                f"{each}, though training rows seldom repeat each other",
                where=f"dataset '{name}'",
                fix="split before rows are repeated, oversampled or cut into windows, and drop repeated rows first",
            )


def leaks(splits: Splits, *, name: str) -> list[str]:
    """Sentences about what gives rows of this dataset away.

    Raises:
        LeakageError: most test or validation rows are copies.
    """
    copies = copied_rows(splits)
    refuse_copies(copies, name=name)
    return [*map(str, copies), *answers_among_inputs(splits)]


LOOKED_AT = 2000
"""Training rows in which the target is looked for among the inputs."""
EQUAL = 1e-3
"""What may be left of a column's spread beside a target that it is said to be; values of tables are rounded."""


def answers_among_inputs(splits: Splits) -> list[str]:
    """Sentences about columns of flat inputs ``[N, F]`` that are the target of the training rows, see `left_open`."""
    flat = [name for name, spec in splits.info.inputs.items() if len(spec.shape) == 1 and spec.dtype == "float32"]
    if splits.train.lengths is not None or not flat:
        return []
    rows = splits.train.batch(spread_positions(len(splits.train), LOOKED_AT))
    if rows["target"].dim() != 1:
        return []
    found = []
    for name in flat:
        left = left_open(rows[name].double().numpy(), rows["target"])
        names = splits.info.meta.get("feature_names") or [f"number {column}" for column in range(rows[name].shape[1])]
        found += [
            f"column '{names[column]}' of input '{name}' is the target of all training rows, up to scale and shift: "
            "leave it out unless it is known when a prediction is wanted"
            for column in np.flatnonzero(left <= EQUAL)
        ]
    return found


def left_open(places: np.ndarray, target: Tensor) -> np.ndarray:
    """The share of each place's spread that the target leaves open ``[P]``: 0 where a number is a linear function of
    the target, or all rows of a class share one value and those of others have another; 1 where a place does not vary,
    and where any place would do, because the target does not vary or every row is a class of its own.

    Args:
        places: ``[N, P]``.
        target: values, or classes (integers, or two values) ``[N]``.
    """
    x, y = places - places.mean(axis=0), target.double().numpy()
    kinds = np.unique(y)
    classes = len(kinds) == 2 or not target.is_floating_point()
    if len(kinds) < 2 or (classes and len(kinds) > len(y) / 4):
        return np.ones(places.shape[1])
    spread = (x**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        if classes:
            within = sum(((x[y == kind] - x[y == kind].mean(axis=0)) ** 2).sum(axis=0) for kind in kinds)
            rest = within / spread
        else:
            y = y - y.mean()
            rest = 1 - (x * y[:, None]).sum(axis=0) ** 2 / (spread * (y**2).sum())
    left: np.ndarray = np.sqrt(np.clip(np.where(spread > 1e-12, rest, 1.0), 0, 1))
    return left
