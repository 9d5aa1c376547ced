"""Stage data: rows are made and split, checked for leakage, and fingerprinted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from stillhouse.errors import DataError, IncompatibleError, LeakageError
from stillhouse.kinds import OutputKind
from stillhouse.recipe.check import ResolvedRecipe
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
    seen: dict[int, str] = {}
    for split_name, split in everything.items():
        index = split.index().tolist()
        if len(set(index)) != len(index):
            raise DataError(
                f"split '{split_name}' of '{name}' gives the same row id to several rows",
                where="index",
                fix="make 'index' unique per row",
            )
        for row in index:
            if row in seen:
                raise LeakageError(
                    f"row {row} of '{name}' is in both '{seen[row]}' and '{split_name}'",
                    where="index",
                    fix="make the splits disjoint, and row ids unique over all splits",
                )
            seen[row] = split_name
    groups = {split_name: set(split.groups) for split_name, split in named.items() if split.groups is not None}
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
                fix="correct the labels, or choose the head that fits them",
            )


def fingerprint(splits: Splits) -> str:
    """Hash over the content of all splits and what is declared of them."""
    everything = {
        **splits.named(),
        **({"unlabelled": splits.unlabelled} if splits.unlabelled is not None else {}),
    }
    return digest({"info": splits.info.to_json(), **{name: split.fingerprint() for name, split in everything.items()}})


def duplicated_rows(splits: Splits, limit_bytes: int = 400_000_000) -> int:
    """Number of test rows whose inputs are in the training rows to the last bit; 0 when the rows are too large to
    look."""
    seen: set[int] = set()
    names = list(splits.info.inputs)
    first = splits.train.row(0)
    per_row = sum(first[name].numel() * first[name].element_size() for name in names)
    if per_row * (len(splits.train) + len(splits.test)) > limit_bytes:
        return 0
    counts = 0
    for split, is_test in ((splits.train, False), (splits.test, True)):
        # Rows of different lengths are compared as they are: padding depends on the split that they are in.
        columns = split.columns(names) if split.lengths is None else None
        for position in range(len(split)):
            row = split.row(position) if columns is None else {name: columns[name][position] for name in names}
            key = hash(b"".join(row[name].numpy().tobytes() for name in names))
            if not is_test:
                seen.add(key)
            elif key in seen:
                counts += 1
    return counts
