"""Stage data: rows are made and split, checked for leakage, and fingerprinted."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor

from stillhouse.data.splitting import spread_positions
from stillhouse.errors import DataError, IncompatibleError, LeakageError
from stillhouse.kinds import OutputKind
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.storage import digest
from stillhouse.types import DataContext, DataInfo, Head, Split, Splits


def data_root() -> Path:
    """Folder of official dataset files: ``$STILLHOUSE_DATA``, else the platform's user data folder."""
    given = os.environ.get("STILLHOUSE_DATA")
    return Path(given).expanduser() if given else Path(platformdirs.user_data_dir("stillhouse"))


def make_splits(resolved: ResolvedRecipe, *, download: bool = True) -> Splits:
    """Make the recipe's dataset and check it.

    Raises:
        DataError: files are missing or bad, or a split is empty.
        LeakageError: a group or a row is in two splits, or time runs backwards.
    """
    component = resolved.dataset.component
    plugin, _, name = component.id.partition("/")
    context = DataContext(
        root=(data_root() / plugin / name).resolve(),
        base=resolved.base,
        seed=resolved.recipe.data_seed,
        download=download,
    )
    splits = component.load()(context, **resolved.dataset.options)
    if not isinstance(splits, Splits):
        raise IncompatibleError(
            f"dataset '{component.id}' returned {type(splits).__name__}, not Splits",
            where=component.spec.target,
            fix="return stillhouse.types.Splits",
        )
    check_splits(splits, name=component.id)
    return splits


def check_splits(splits: Splits, *, name: str) -> None:
    """Guard rails on the rows: none empty, no row id and no group in two splits, training before test in time, the
    declared inputs present with the declared shapes.

    Raises:
        DataError: an empty split, a missing entry, a wrong shape.
        LeakageError: see above; the message names the group or row.
    """
    named = splits.named()
    for split_name, split in named.items():
        if len(split) == 0:
            raise DataError(
                f"split '{split_name}' of '{name}' is empty",
                where=name,
                fix="check the split options and the files",
            )
        _check_first_row(splits, split_name, split, name)
    everything = {**named, **({"unlabelled": splits.unlabelled} if splits.unlabelled is not None else {})}
    _check_ids(everything, name)
    _check_groups(named, name)
    _check_times(splits, named, name)


def _check_ids(splits: Mapping[str, Split], name: str) -> None:
    seen: dict[str, Tensor] = {}
    for split_name, split in splits.items():
        index = split.index()
        ids = torch.unique(index)
        if len(ids) != len(index):
            raise DataError(
                f"split '{split_name}' of '{name}' gives the same row id to several rows",
                where="index",
                fix="make 'index' unique per row",
            )
        for other, known in seen.items():
            both = ids[torch.isin(ids, known, assume_unique=True)]
            if len(both):
                raise LeakageError(
                    f"row {int(both[0])} of '{name}' is in both '{other}' and '{split_name}'",
                    where="index",
                    fix="make the splits disjoint, and row ids unique over all splits",
                )
        seen[split_name] = ids


def _check_groups(splits: Mapping[str, Split], name: str) -> None:
    groups = {split_name: set(split.groups) for split_name, split in splits.items() if split.groups is not None}
    names = list(groups)
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            both = groups[names[first]] & groups[names[second]]
            if both:
                raise LeakageError(
                    f"group '{min(both)}' of '{name}' is in both '{names[first]}' and '{names[second]}' "
                    f"({len(both)} such groups)",
                    where="groups",
                    fix="split by group (patient, machine, card, speaker), not by row",
                )


def _check_times(splits: Splits, named: Mapping[str, Split], name: str) -> None:
    if (
        splits.train.times is not None
        and splits.test.times is not None
        and max(splits.train.times) >= min(splits.test.times)
    ):
        raise LeakageError(
            f"the last training row of '{name}' is not before the first test row",
            where="times",
            fix="split by time: train, then validation, then test",
        )
    for before, after in (("train", "val"), ("train", "test"), ("val", "test")):
        until, earlier, later = named[before].until, named[before].times, named[after].times
        if until is None or later is None or (earlier is not None and max(earlier) >= min(later)):
            continue  # not declared, or not split by time
        if max(until) > min(later):
            raise LeakageError(
                f"a row of split '{before}' of '{name}' takes in values until {max(until):g}, and split '{after}' "
                f"begins at {min(later):g}",
                where="until",
                fix=f"leave out the last rows of '{before}', whose window or horizon reaches into '{after}' (a purge "
                "gap)",
            )


def _check_first_row(splits: Splits, split_name: str, split: Split, name: str) -> None:
    row = split.row(0)
    for entry in ("target", "index"):
        if entry not in row:
            raise DataError(
                f"rows of '{name}' have no '{entry}'",
                where=f"split '{split_name}'",
                fix="see stillhouse.types.Batch for what a row holds",
            )
    check_inputs(splits.info, row, split_name, name)


def check_inputs(info: DataInfo, row: Mapping[str, Tensor], split_name: str, name: str) -> None:
    """The first row of a split has every declared input, with the declared shape and dtype.

    Raises:
        DataError: it has not.
    """
    for input_name, spec in info.inputs.items():
        if input_name not in row:
            raise DataError(
                f"rows of '{name}' have no input '{input_name}', which its info declares",
                where=f"split '{split_name}'",
                fix="add it, or correct DataInfo.inputs",
            )
        shape, dtype = tuple(row[input_name].shape), str(row[input_name].dtype).removeprefix("torch.")
        fits = len(shape) == len(spec.shape) and all(
            want in (-1, have) for want, have in zip(spec.shape, shape, strict=True)
        )
        if not fits or dtype != spec.dtype:
            raise DataError(
                f"input '{input_name}' of '{name}' is {dtype} {shape}, its info declares {spec.dtype} {spec.shape}",
                where=f"split '{split_name}', row 0",
                fix="correct DataInfo.inputs or the rows",
            )


WANTED = {
    OutputKind.MULTICLASS: "classes [N] int64 (or shares of classes [N, C] float32)",
    OutputKind.BINARY: "0 or 1 [N] float32",
    OutputKind.MULTILABEL: "0 or 1 for each label [N, L] float32",
    OutputKind.REGRESSION: "values [N] or [N, D] float32",
    OutputKind.GAUSSIAN: "values [N] or [N, D] float32",
    OutputKind.SEGMENTATION: "the class of each pixel [N, H, W] int64",
    OutputKind.SEQUENCE: "tokens [N, T] int64",
}
"""What targets of a whole split are, by output kind; see `stillhouse.kinds`."""


def target_problem(kind: OutputKind, target: Tensor, info: DataInfo) -> str:
    """What is wrong with the targets of a whole split ``[N, ...]`` for an output kind, as a sentence; empty when
    nothing is."""
    dtype, ndim = target.dtype, target.ndim
    fits = {
        OutputKind.MULTICLASS: (dtype is torch.int64 and ndim == 1) or (dtype is torch.float32 and ndim == 2),
        OutputKind.BINARY: dtype is torch.float32 and ndim == 1,
        OutputKind.MULTILABEL: dtype is torch.float32 and ndim == 2,
        OutputKind.REGRESSION: dtype is torch.float32 and ndim in (1, 2),
        OutputKind.GAUSSIAN: dtype is torch.float32 and ndim in (1, 2),
        OutputKind.SEGMENTATION: dtype is torch.int64 and ndim == 3,
        OutputKind.SEQUENCE: dtype is torch.int64 and ndim == 2,
    }[kind]
    shown = f"{str(dtype).removeprefix('torch.')} {['N', *target.shape[1:]]}".replace("'", "")
    if not fits:
        return f"the targets are {shown}, and {kind} takes {WANTED[kind]}"
    if kind is OutputKind.MULTICLASS and ndim == 1 and info.classes is not None and len(target):
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= len(info.classes):
            return f"the targets reach from {low} to {high}, and DataInfo.classes has {len(info.classes)} names"
    if kind in (OutputKind.BINARY, OutputKind.MULTILABEL) and bool(((target < 0) | (target > 1)).any()):
        return f"the targets reach from {float(target.min()):g} to {float(target.max()):g}, and {kind} takes 0 and 1"
    return ""


def check_targets(splits: Splits, head: Head, *, name: str) -> None:
    """Targets are finite and inside the declared set.

    Raises:
        DataError: with split and row id of the first bad target.
    """
    for split_name, split in splits.named().items():
        columns = split.columns(["target", "index"])
        target = columns["target"]
        bad = torch.zeros(len(target), dtype=torch.bool)
        if target.is_floating_point():
            bad |= ~torch.isfinite(target).reshape(len(target), -1).all(1)
        if head.kind is OutputKind.MULTICLASS and not target.is_floating_point():
            bad |= (target < 0) | (target >= head.outputs)
        if head.kind in (OutputKind.BINARY, OutputKind.MULTILABEL):
            bad |= ((target < 0) | (target > 1)).reshape(len(target), -1).any(1)
        if bool(bad.any()):
            at = int(torch.nonzero(bad)[0])
            raise DataError(
                f"the target {target[at].tolist()} is not one that the {head.kind} head takes ({int(bad.sum())} "
                "such rows)",
                where=f"dataset '{name}', split '{split_name}', row {int(columns['index'][at])}",
                fix="correct the labels, or choose the head that fits them: core/regression for values, "
                "core/multiclass for classes, core/binary for 0 and 1",
            )


def fingerprint(splits: Splits) -> str:
    """Hash over the content of all splits and what is declared of them."""
    everything = {
        **splits.named(),
        **({"unlabelled": splits.unlabelled} if splits.unlabelled is not None else {}),
    }
    return digest({"info": splits.info.to_json(), **{name: split.fingerprint() for name, split in everything.items()}})


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


LOOKED_AT = 2000
"""Training rows in which the target is looked for among the inputs."""
EQUAL = 1e-6
"""Share of a column's variance that the target may leave open where the two are the same but for scale and shift."""


def answers_among_inputs(splits: Splits) -> list[str]:
    """Sentences about columns of flat inputs ``[N, F]`` that are the target itself: a linear function of it for values,
    one value for all rows of a class and another for the others for classes."""
    flat = [name for name, spec in splits.info.inputs.items() if len(spec.shape) == 1 and spec.dtype == "float32"]
    if splits.train.lengths is not None or not flat:
        return []
    rows = splits.train.batch(spread_positions(len(splits.train), LOOKED_AT))
    target, known = rows["target"].double().numpy(), np.unique(rows["target"].numpy())
    classes = len(known) == 2 or not rows["target"].is_floating_point()
    # Where every row is a class of its own any column would do.
    if target.ndim != 1 or len(known) < 2 or (classes and len(known) > len(target) / 4):
        return []
    found = []
    for name in flat:
        x = rows[name].double().numpy()
        x = x - x.mean(axis=0)
        if classes:
            left = sum(((x[target == kind] - x[target == kind].mean(axis=0)) ** 2).sum(axis=0) for kind in known)
        else:
            y = target - target.mean()
            left = (x**2).sum(axis=0) - (x * y[:, None]).sum(axis=0) ** 2 / (y**2).sum()
        names = splits.info.meta.get("feature_names") or [f"number {column}" for column in range(x.shape[1])]
        spread = (x**2).sum(axis=0)
        for column in np.flatnonzero((spread > 0) & (left <= EQUAL * spread)):
            found.append(
                f"column '{names[column]}' of input '{name}' is the target of all training rows, up to scale and "
                "shift: leave it out unless it is known when a prediction is wanted"
            )
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
