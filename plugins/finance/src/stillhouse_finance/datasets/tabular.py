"""Any table with a target column: CSV or Parquet, numeric and categorical columns, split by time, by group or at
random."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stillhouse.data import tables
from stillhouse.data.splitting import split_groups, split_rows
from stillhouse.errors import DataError
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit
from stillhouse_finance.datasets.columns import moments
from stillhouse_finance.datasets.encoding import MISSING, Encoder, as_level, as_levels

Kind = Literal["binary", "multiclass", "regression"]
PARTS = ("train", "val", "test")


def tabular(
    context: DataContext,
    *,
    path: str = "table.csv",
    target: str = "target",
    kind: Kind = "binary",
    classes: tuple[str, ...] | None = None,
    numeric: tuple[str, ...] | None = None,
    categorical: tuple[str, ...] | None = None,
    ignore: tuple[str, ...] = (),
    time: str | None = None,
    group: str | None = None,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    levels: int = 20,
    unit: str = "",
) -> Splits:
    """Your own table. Scaling and levels are fitted on training rows only.

    Args:
        context: the folder that ``path`` is relative to, and the seed of the split.
        path: the ``.csv`` or ``.parquet`` file.
        target: column to predict.
        kind: what the target is; the head must suit it.
        classes: all labels that may occur, as text; of two, the second is the event ("yes"). By default those of the
            file, in order, where 0 and 1 or false and true are no and yes.
        numeric: numeric columns; by default all others that hold numbers.
        categorical: columns of levels; by default all others that hold text or true and false.
        ignore: columns that no model may see, such as ids, or what is known only afterwards.
        time: column with a date or number; earlier rows train, later ones validate, the last ones test.
        group: column with the unit, customer or account; each is in one split only.
        val_fraction: share of the rows (of the groups) for validation.
        test_fraction: share of the rows (of the groups) for testing.
        levels: most frequent levels of a categorical column that get a feature of their own.
        unit: unit of a numeric target.

    Raises:
        DataError: the file cannot be used, a label is outside ``classes``, or a split is empty or lacks a class.
    """
    if val_fraction <= 0 or test_fraction <= 0 or val_fraction + test_fraction >= 1 or levels < 1:
        raise DataError(
            f"val_fraction {val_fraction}, test_fraction {test_fraction} and levels {levels} give no usable rows",
            where="dataset options",
            fix="fractions above 0 with a sum below 1, e.g. 0.2 each, and at least one level",
        )
    if time and group:
        raise DataError("rows are split by time or by group, not by both", where="dataset options", fix="leave one out")
    # The table, and what its columns are.
    source = context.base / Path(path)
    raw, first, where = tables.read_table(source), tables.first_row(source), str(source)
    named = [
        target,
        *(numeric or ()),
        *(categorical or ()),
        *ignore,
        *([time] if time else []),
        *([group] if group else []),
    ]
    if target == "target" and target not in raw.columns:  # the default: nobody has said yet what is to be predicted
        columns = ", ".join(map(str, raw.columns[:12])) + (", ..." if len(raw.columns) > 12 else "")
        raise DataError(
            "there is no column 'target'",
            where=where,
            fix=f"name the column that is to be predicted with dataset.target; there are {columns}",
        )
    tables.require_columns(raw, named, where)
    numbers, texts = _features(raw, numeric, categorical, {target, *ignore, time, group}, where)
    goal, labels = _target(raw[target], kind, classes, where=where, first=first)
    # The split, and an encoder of the features that training rows alone decide.
    classes_of_rows = None if labels is None else np.array(labels)[goal]
    order, parts = _split(
        raw, classes_of_rows, time, group, val_fraction, test_fraction, context.seed, where=where, first=first
    )
    for name in PARTS:
        _refuse_part(goal[parts[name]], name, labels, where)
    train = raw.iloc[parts["train"]]
    encoder = Encoder.fit(
        {name: tables.numbers(raw[name], where=where, first=first, gaps=True)[parts["train"]] for name in numbers},
        {name: as_levels(train[name]) for name in texts},
        levels,
    )
    x, y = torch.from_numpy(encoder.read(raw, where=where, first=first)), _tensor(goal, kind)
    groups = None if group is None else as_levels(raw[group]).to_numpy()

    def rows(name: str) -> TensorSplit:
        at = parts[name]
        return TensorSplit(
            {"x": x[at], "target": y[at], "index": torch.from_numpy(at)},
            groups=None if groups is None else groups[at].tolist(),
            times=None if order is None else order[at].tolist(),
        )

    # What models and heads need to know.
    known = goal[parts["train"]]
    info = DataInfo(
        inputs={"x": TensorSpec((x.shape[1],))},
        classes=labels,
        class_counts=None if labels is None else tuple(int((known == code).sum()) for code in range(len(labels))),
        target_mean=float(known.mean()) if labels is None else 0.0,
        target_std=float(known.std()) or 1.0 if labels is None else 1.0,
        unit=unit,
        description=f"{source.name}: {len(raw)} rows of {len(numbers)} numeric and {len(texts)} categorical columns",
        meta=encoder.meta(),
    )
    return Splits(
        info=info, train=rows("train"), val=rows("val"), test=rows("test"), reader=TableReader(encoder=encoder)
    )


def _features(
    raw: pd.DataFrame,
    numeric: tuple[str, ...] | None,
    categorical: tuple[str, ...] | None,
    taken: set[str | None],
    where: str,
) -> tuple[list[str], list[str]]:
    """Names of the numeric and of the categorical columns; dates are neither."""
    both = set(numeric or ()) & set(categorical or ()) | (set(numeric or ()) | set(categorical or ())) & taken
    if both:
        raise DataError(f"column '{min(map(str, both))}' has two roles", where=where, fix="name it once")
    free = [name for name in raw.columns if name not in taken | set(numeric or ()) | set(categorical or ())]
    kinds = pd.api.types
    numbers, texts = list(numeric or ()), list(categorical or ())
    if numeric is None:
        numbers = [each for each in free if kinds.is_numeric_dtype(raw[each]) and not kinds.is_bool_dtype(raw[each])]
    if categorical is None:
        others = [name for name in free if name not in numbers]
        dates = [name for name in others if _has_dates(raw[name])]
        if dates:
            warnings.warn(
                f"{_named(dates)} of dates, and left out: a model takes numbers (days since an event, say), or "
                "levels of a column that categorical names",
                stacklevel=2,
            )
        others = [name for name in others if name not in dates]
        texts = [each for each in others if not kinds.is_numeric_dtype(raw[each]) or kinds.is_bool_dtype(raw[each])]
        ids = [name for name in texts if raw[name].nunique() > max(20, len(raw) // 2)]
        if ids:
            raise DataError(
                f"{_named(ids)} of mostly different values ({raw[ids[0]].nunique()} in {len(raw)} rows)",
                where=where,
                fix=f"put ids into ignore: ignore: [{', '.join(ids)}]; or name columns in categorical or numeric",
            )
    if not numbers and not texts:
        raise DataError("no column is left for the features", where=where, fix="name them in numeric and categorical")
    return numbers, texts


def _named(names: Sequence[str]) -> str:
    """``column 'a' is``, ``columns 'a', 'b' are``."""
    listed = ", ".join(f"'{name}'" for name in names)
    return f"column {listed} is" if len(names) == 1 else f"columns {listed} are"


def _has_dates(column: pd.Series) -> bool:
    """It holds dates, as such or as texts in the form of ISO 8601."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    if pd.api.types.is_numeric_dtype(column):
        return False
    known = column.dropna().astype(str)
    return bool(len(known)) and bool(known.str.fullmatch(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?.*)?").all())


def _target(
    column: pd.Series, kind: Kind, classes: tuple[str, ...] | None, *, where: str, first: int
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The target as values or class codes ``[N]``, and the classes."""
    place = {"where": where, "first": first}
    if kind == "regression":
        return tables.numbers(column, **place), None
    fix = "correct the label, or remove the row"
    text = as_levels(column)
    tables.refuse((text == MISSING).to_numpy(), column, "a label", fix=fix, **place)
    found = sorted(text.unique())
    labels = tuple(map(as_level, classes)) if classes else tuple(found)
    if not classes and all(label.lstrip("-").isdigit() for label in found):
        labels = tuple(sorted(found, key=int))
    codes = pd.Index(dict.fromkeys(labels)).get_indexer(text).astype(np.int64)
    tables.refuse(codes < 0, column, f"one of the declared classes {list(labels)}", fix=fix, **place)
    if len(labels) < 2 or (kind == "binary" and len(labels) != 2):
        raise DataError(
            f"column '{column.name}' has {len(labels)} labels ({', '.join(labels[:5])}), and kind is {kind}",
            where=where,
            fix="choose the kind that fits: binary has two labels, multiclass at least two, regression numbers",
        )
    if (
        kind == "binary"
        and not classes
        and tuple(map(str.lower, labels)) not in (("0", "1"), ("false", "true"), ("no", "yes"))
    ):
        raise DataError(
            f"which of '{labels[0]}' and '{labels[1]}' in column '{column.name}' is the event to find?",
            where=where,
            fix=f"name it second: classes: ['{labels[0]}', '{labels[1]}']",
        )
    return codes, labels


def _split(
    raw: pd.DataFrame,
    classes: np.ndarray | None,
    time: str | None,
    group: str | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    *,
    where: str,
    first: int,
) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """What orders the rows in time ``[N]``, when they are split by it, and the row numbers of each split."""
    if time is not None:
        column = raw[time]
        number = pd.api.types.is_numeric_dtype(column)
        order = (
            tables.numbers(column, where=where, first=first) if number else moments(column, where=where, first=first)
        )
        ranked = np.sort(order)
        # A moment is never divided: rows of the same time are on the same side.
        test_from = ranked[round(len(raw) * (1 - test_fraction))] if round(len(raw) * test_fraction) else np.inf
        val_from = ranked[round(len(raw) * (1 - test_fraction - val_fraction))]
        masks = (order < val_from, (order >= val_from) & (order < test_from), order >= test_from)
        return order, dict(zip(PARTS, map(np.flatnonzero, masks), strict=True))
    fractions = {"val": val_fraction, "test": test_fraction}
    if group is not None:
        tables.ids(raw[group], where=where, first=first)
        return None, split_groups(as_levels(raw[group]).to_numpy(), fractions, seed, where=where)
    return None, split_rows(len(raw), fractions, seed, classes=classes, where=where)


def _refuse_part(goal: np.ndarray, name: str, labels: tuple[str, ...] | None, where: str) -> None:
    fix = "bring more rows, or change val_fraction, test_fraction, time or group"
    if not len(goal):
        raise DataError(f"split '{name}' is empty", where=where, fix=fix)
    missing = [] if labels is None else [label for code, label in enumerate(labels) if not (goal == code).any()]
    if missing and (name == "train" or len(labels or ()) == 2):
        raise DataError(f"split '{name}' has no row of class '{missing[0]}'", where=where, fix=fix)


def _tensor(goal: np.ndarray, kind: Kind) -> Tensor:
    values = torch.from_numpy(np.array(goal))  # pandas may hand out what it does not want written to
    return values if kind == "multiclass" else values.float()


class TableReader:
    """Features of a file's columns, in the order of the encoder's lists. Numeric columns first: (value - mean) / std, 0
    for an empty cell, and where ``gaps`` is true an indicator of empty cells behind each. Then categorical columns: an
    indicator for each of the ``levels``, and one for every other value; values are text without blanks at the ends,
    whole numbers without a point, "True" and "False" for yes and no, "(missing)" for an empty cell.

    Args:
        encoder: fitted on training rows.
    """

    def __init__(self, *, encoder: Encoder) -> None:
        self.encoder = encoder

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"encoder": self.encoder.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(encoder=Encoder.from_state(state["encoder"]))

    def read(self, path: Path) -> tuple[TensorSplit, dict[str, list[Any]]]:
        """All rows, each with its ``row`` in the file.

        Raises:
            DataError: the file cannot be read, lacks a column, or has a bad value.
        """
        path = Path(path)
        first = tables.first_row(path)
        table = tables.read_table(path)
        values = self.encoder.read(table, where=str(path), first=first)
        for each in self.encoder.unknown_levels(table):
            warnings.warn(each, stacklevel=2)
        return TensorSplit({"x": torch.from_numpy(values)}), {"row": list(range(first, first + len(values)))}
