"""The rows of a search: what learns, what chooses the epoch, and held-out rows that judge; never a row of the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stillhouse.data.splitting import fold_positions, share_of_few_groups
from stillhouse.errors import IncompatibleError, LeakageError
from stillhouse.kinds import OutputKind
from stillhouse.types import ConcatSplit, Split, Splits, SubsetSplit

FEW_ROWS = 5000
"""Labelled rows, training and validation together, up to which they are pooled and judged in folds."""
FEW_VALIDATION_ROWS = 1000
"""Validation rows up to which folds judge whatever the number of training rows: so few tell settings apart by luck."""
FOLDS = 3
"""Folds of the pooled rows."""
VERY_FEW_ROWS = 2000
"""Labelled rows up to which the folds are drawn twice: the fewer rows judge, the more a single draw decides."""
INNER = 5
"""One part in so many of a fold's training rows chooses the epoch."""


@dataclass(frozen=True)
class View:
    """One way to look at the rows of a search.

    Attributes:
        name: for messages and files.
        splits: ``train`` learns, ``val`` chooses the epoch, and ``test`` has the held-out rows, none of which is a
            test row of the dataset.
        draw: which draw of the folds it is of.
    """

    name: str
    splits: Splits
    draw: int = 0


def make_views(splits: Splits, kind: OutputKind, *, folds: int | Literal["auto"] = "auto", seed: int = 0) -> list[View]:
    """The views of a search.

    Few rows (`FEW_ROWS`, or `FEW_VALIDATION_ROWS` of validation) are pooled, training and validation, and held out
    fold by fold, whole groups together, and never augmented; a part of the others chooses the epoch. Auxiliary rows
    teach where their group does, and judge nothing. Where there are many, the validation rows are halved instead,
    because a dataset keeps them to be like its test: one half chooses the epoch, the other judges, then the other
    way round; likewise where rows follow each other in time, where groups are fewer than folds, in all or of the
    classes of most rows, and where rows cannot be had without augmentation. A single validation group, of all rows
    or of most classes, is halved within.

    Args:
        splits: the dataset.
        kind: output kind of the head.
        folds: folds of the pooled rows; 2 halves of the validation rows when it is 1.
        seed: of the draw.

    Raises:
        IncompatibleError: there are too few rows or groups for it.
    """
    if folds == "auto":
        few = len(splits.train) + len(splits.val) <= FEW_ROWS or len(splits.val) <= FEW_VALIDATION_ROWS
        in_folds = few and splits.train.times is None and not splits.train.plain().stochastic
        folds = FOLDS if in_folds and _enough_groups(ConcatSplit([splits.train, splits.val]), kind, FOLDS) else 1
    if folds > 1:
        pool = ConcatSplit([splits.train.plain(), splits.val.plain()])
        draws = 2 if len(pool) <= VERY_FEW_ROWS else 1
        drawn = [(draw, *part) for draw in range(draws) for part in _folds(pool, folds, kind, seed + draw)]
        views = []
        for number, (draw, kept, held) in enumerate(drawn):
            learn, choose = _folds(SubsetSplit(pool, kept), INNER, kind, seed)[0]
            train: Split = SubsetSplit(pool, [kept[at] for at in learn])
            if splits.train.stochastic:  # the dataset augments its training rows alone
                train = SubsetSplit(splits.train, [kept[at] for at in learn if kept[at] < len(splits.train)])
            val = _judging(pool, [kept[at] for at in choose])
            views.append(_view(f"fold-{number}", splits, train, val, _judging(pool, held), draw))
        return views
    halves = _halves(splits.val, kind, seed)
    return [
        _view(f"half-{number}", splits, splits.train, halves[number], halves[1 - number])
        for number in range(len(halves))
    ]


def check_untouched(views: list[View], test: Split) -> str:
    """A sentence that says that no view has a test row, after a look at the row ids and groups.

    Raises:
        LeakageError: one has.
    """
    rows, groups = set(test.index().tolist()), set(test.groups or ())
    for view in views:
        for name, split in view.splits.named().items():
            if shared := rows & set(split.index().tolist()):
                raise LeakageError(
                    f"test row {min(shared)} is in the {name} rows of the search's {view.name}",
                    where="search",
                    fix="make row ids unique over all splits",
                )
            if split.groups is not None and (both := groups & set(split.groups)):
                raise LeakageError(
                    f"test group '{min(both)}' is in the {name} rows of the search's {view.name}",
                    where="search",
                    fix="split by group",
                )
    return f"no row id and no group of the {len(test)} test rows is in one of the {len(views)} views of the search"


def _judging(pool: Split, positions: list[int]) -> Split:
    """The rows at these positions that are of the kind of validation and test."""
    marks = pool.auxiliary
    return SubsetSplit(pool, [position for position in positions if marks is None or not marks[position]] or positions)


def _view(name: str, splits: Splits, train: Split, val: Split, held: Split, draw: int = 0) -> View:
    return View(name, Splits(info=splits.info, train=train, val=val, test=held, unlabelled=splits.unlabelled), draw)


def _folds(split: Split, folds: int, kind: OutputKind, seed: int) -> list[tuple[list[int], list[int]]]:
    """Positions kept and held out; fewer folds where there are fewer groups or rows of a class, and rows drawn without
    regard to classes where a class has a single one.

    Raises:
        IncompatibleError: not even two folds can be made.
    """
    for count in range(folds, 1, -1):
        try:
            return fold_positions(split, count, kind, seed)
        except IncompatibleError:
            continue
    if split.groups is None and len(split) >= 2 * folds:
        order = np.random.default_rng(seed).permutation(len(split))
        parts = [part.tolist() for part in np.array_split(order, folds)]
        return [(sorted(set(range(len(split))) - set(part)), sorted(part)) for part in parts]
    raise IncompatibleError(
        f"{len(split)} rows cannot be held out in two parts",
        where="search",
        fix="bring more rows or groups: a search needs some to judge by",
    )


def _enough_groups(split: Split, kind: OutputKind, wanted: int) -> bool:
    """There are as many groups to hold out, of the classes of most rows, too; always without groups."""
    if split.groups is None:
        return True
    return len(set(split.groups)) >= wanted and share_of_few_groups(split, kind, wanted) <= 0.5


def _halves(split: Split, kind: OutputKind, seed: int) -> tuple[Split, Split]:
    """Two halves: by time, by whole groups, or, where the validation rows of all or of a class are of one group, the
    first and the last rows of each group: it is still one that training rows are not from."""
    if split.times is not None:
        order = np.argsort(np.asarray(split.times), kind="stable")
        first, second = (part.tolist() for part in np.array_split(order, 2))
    elif split.groups is not None and not _enough_groups(split, kind, 2) and len(split) > 1:
        of_group: dict[str, list[int]] = {}
        for position, group in enumerate(split.groups):
            of_group.setdefault(group, []).append(position)
        parts = [np.array_split(positions, 2) for positions in of_group.values()]
        first, second = (np.concatenate([part[half] for part in parts]).tolist() for half in (0, 1))
    else:
        first, second = _folds(split, 2, kind, seed)[0]
    return SubsetSplit(split, sorted(first)), SubsetSplit(split, sorted(second))
