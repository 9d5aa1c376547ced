"""Seeded splits of rows: by fractions, class by class or in whole groups, and into folds. Public: plugins' datasets and
the pipeline draw their splits here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from stillhouse.errors import DataError, IncompatibleError, OptionError
from stillhouse.kinds import OutputKind
from stillhouse.types import Split


def split_rows(
    rows: int,
    fractions: Mapping[str, float],
    seed: int | np.random.Generator,
    *,
    classes: ArrayLike | None = None,
    rest: str = "train",
    unit: str = "row",
    where: str = "options of the dataset",
) -> dict[str, np.ndarray]:
    """Positions of each split in ascending order, drawn at random.

    Args:
        rows: number of rows.
        fractions: share of each split, drawn in this order: at least one row of each class, none where it is 0.
        seed: seed or generator of the draw.
        classes: class of each row ``[rows]``; each class then has its share in each split.
        rest: name of the split of the rows that are left.
        unit: what a row is, for errors.
        where: the file or option at fault, for errors.

    Raises:
        OptionError: a fraction is negative, or they leave nothing to ``rest``.
        DataError: a class has too few rows for every split.
    """
    if any(fraction < 0 for fraction in fractions.values()) or sum(fractions.values()) >= 1:
        raise OptionError(
            "rows cannot be split with the fractions "
            + ", ".join(f"{name}: {fraction:g}" for name, fraction in fractions.items()),
            where=where,
            fix="none below 0, and less than 1 together",
        )
    random = np.random.default_rng(seed)
    of_row = np.zeros(rows) if classes is None else np.asarray(classes)
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*fractions, rest)}
    for each in np.unique(of_row):
        order = random.permutation(np.flatnonzero(of_row == each))
        sizes = [max(1, round(fraction * len(order))) if fraction else 0 for fraction in fractions.values()]
        if sum(sizes) >= len(order):
            least = sum(size > 0 for size in sizes) + 1
            few, of_it = len(order) < least, "" if classes is None else f" of class '{each}'"
            raise DataError(
                f"{_counted(len(order), unit)}{of_it} cannot be split into {', '.join(found)}",
                where=where,
                fix=f"bring at least {_counted(least, unit)}{of_it}"
                + (", correct its label, or remove its rows" if of_it else "")
                if few
                else f"bring more{of_it}, or lower the fractions",
            )
        for name, part in zip(found, np.split(order, np.cumsum(sizes)), strict=True):
            found[name].append(part)
    return {name: np.sort(np.concatenate(parts)) for name, parts in found.items()}


def _counted(number: int, unit: str) -> str:
    """``1 file``, ``2 groups of like texts``."""
    first, of, rest = unit.partition(" of ")
    return f"{number} {first}{'' if number == 1 else 's'}{of}{rest}"


def split_groups(
    groups: Sequence[str] | np.ndarray,
    fractions: Mapping[str, float],
    seed: int | np.random.Generator,
    *,
    classes: ArrayLike | None = None,
    unit: str = "group",
    where: str = "options of the dataset",
) -> dict[str, np.ndarray]:
    """Positions of each split as in `split_rows`, with no group in two splits.

    Args:
        groups: group of each row ``[N]``.
        fractions: share of the groups of each split; the rest is ``train``.
        seed: seed or generator of the draw.
        classes: class of each row ``[N]``; groups are then drawn class by class, a group by the class of its first row.
        unit: what a group is, for errors.
        where: the file or option at fault, for errors.

    Raises:
        OptionError: a fraction is negative, or they leave nothing for training.
        DataError: there are too few groups (of a class) for every split.
    """
    names, first, of_row = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    of_group = None if classes is None else np.asarray(classes)[first]
    drawn = split_rows(len(names), fractions, seed, classes=of_group, unit=unit, where=where)
    return {name: np.flatnonzero(np.isin(of_row, chosen)) for name, chosen in drawn.items()}


def share_of_few_groups(split: Split, kind: OutputKind, groups: int) -> float:
    """Share of the rows whose class has rows of fewer than ``groups`` groups: holding out groups takes much, or all, of
    such a class away. 0 without groups, or without one class a row."""
    if split.groups is None or kind not in (OutputKind.MULTICLASS, OutputKind.BINARY):
        return 0.0
    classes = split.columns(["target"])["target"].flatten().tolist()
    of_class: dict[int, set[str]] = {}
    for label, group in zip(classes, split.groups, strict=True):
        of_class.setdefault(int(label), set()).add(group)
    return float(np.mean([len(of_class[int(label)]) < groups for label in classes]))


def spread_positions(rows: int, count: int) -> list[int]:
    """``count`` positions of so many rows, evenly spread from the first to the last; all where there are no more."""
    if rows <= count:
        return list(range(rows))
    return [int(position) for position in np.linspace(0, rows - 1, count, dtype=np.int64)]


def fold_positions(split: Split, folds: int, kind: OutputKind, seed: int) -> list[tuple[list[int], list[int]]]:
    """Positions kept and held out per fold: whole groups where there are groups, class shares kept where rows have one
    class each, as far as a class has rows for all folds (scikit-learn).

    Raises:
        IncompatibleError: fewer groups, or rows of every class, than folds; or most rows are of classes that have a
            single group each, of which a model fitted without that group would know nothing.
    """
    positions = np.arange(len(split))
    classes = None
    if kind in (OutputKind.MULTICLASS, OutputKind.BINARY):
        classes = split.columns(["target"])["target"].flatten().numpy()
    if (single := share_of_few_groups(split, kind, 2)) > 0.5:
        raise IncompatibleError(
            f"{single:.0%} of the rows are of classes that have a single group: a model fitted without it has never "
            "seen the class",
            where="teacher.out_of_fold",
            fix="set it to 0, or split the rows into more groups",
        )
    shuffled = {"n_splits": folds, "shuffle": True, "random_state": seed}
    if split.groups is not None:
        splitter = GroupKFold(**shuffled) if classes is None else StratifiedGroupKFold(**shuffled)
    else:
        splitter = KFold(**shuffled) if classes is None else StratifiedKFold(**shuffled)
    few = split.groups is not None and len(set(split.groups)) < folds
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class of fewer rows than folds is missing from some
            found = [] if few else list(splitter.split(positions, classes, split.groups))
    except ValueError:
        found = []
    if not found:
        raise IncompatibleError(
            f"{folds} folds need as many {'groups' if few else 'rows of some class'} in the training rows",
            where="teacher.out_of_fold",
            fix="use fewer folds",
        )
    return [(kept.tolist(), held.tolist()) for kept, held in found]
