"""Stage data: rows are made and split, their ids, groups, times and targets checked, and fingerprinted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor

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
    """Targets are of the head's form, finite and inside the declared set.

    Raises:
        IncompatibleError: they are classes where the head takes several labels a row, or the other way round.
        DataError: with split and row id of the first bad target.
    """
    for split_name, split in splits.named().items():
        columns = split.columns(["target", "index"])
        target = columns["target"]
        # Classes of training rows may be shares, mixed by an augmentation.
        if split_name != "train" or head.kind is OutputKind.MULTILABEL:
            _check_form(target, head, where=f"dataset '{name}', split '{split_name}'")
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


def _check_form(target: Tensor, head: Head, *, where: str) -> None:
    """One class a row, or one yes or no for each label: the two are easily confused, and broadcast into each other."""
    several = "several labels a row (of the shape [rows, labels])"
    given = {1: "one class a row", 2: several}.get(target.dim())
    wanted = {OutputKind.MULTICLASS: (1, "one class a row"), OutputKind.MULTILABEL: (2, several)}.get(head.kind)
    if given and wanted and target.dim() != wanted[0]:
        raise IncompatibleError(
            f"the targets are {given}, and the {head.kind} head takes {wanted[1]}",
            where=where,
            fix="choose a head for these targets (`stillhouse components --kind head`), or the option of the dataset "
            "that says which it gives (such as dataset.task)",
        )


def fingerprint(splits: Splits) -> str:
    """Hash over the content of all splits and what is declared of them."""
    everything = {
        **splits.named(),
        **({"unlabelled": splits.unlabelled} if splits.unlabelled is not None else {}),
    }
    return digest({"info": splits.info.to_json(), **{name: split.fingerprint() for name, split in everything.items()}})


def classes_of(info: DataInfo, head: Head) -> dict[str, Any]:
    """For the record: ``classes``, each with its ``name`` and its training ``rows`` (None where the dataset does not
    count them, or counts pixels or words), and ``event``, the class that a yes/no head looks for; None where there are
    none."""
    names, counts = info.classes or (), info.class_counts or ()
    if len(counts) != len(names) or head.kind in (OutputKind.SEGMENTATION, OutputKind.SEQUENCE):
        counts = ()
    return {
        "classes": [{"name": name, "rows": count} for name, count in zip_longest(names, counts)] or None,
        "event": names[1] if names and head.kind is OutputKind.BINARY else None,
    }
