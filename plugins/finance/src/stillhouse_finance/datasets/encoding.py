"""Columns of any table as numbers, fitted on training rows only."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from stillhouse.data import tables

MISSING, OTHER = "(missing)", "(other)"
"""Levels of empty cells, and of cells with a level that is rare or unknown to the training rows."""


@dataclass(frozen=True)
class Numeric:
    """A numeric column, standardised; empty cells get the mean, and an indicator where training had any.

    Args:
        name: of the column.
        mean: of the training rows.
        std: of the training rows, 1 where they do not vary.
        gaps: training rows have empty cells.
    """

    name: str
    mean: float
    std: float
    gaps: bool

    @classmethod
    def fit(cls, name: str, values: np.ndarray) -> Self:
        """From values ``[N]`` with NaN for empty cells."""
        known = values[~np.isnan(values)]
        std = float(known.std()) if len(known) else 0.0
        mean = float(known.mean()) if len(known) else 0.0
        return cls(name, mean, std if std > 0 else 1.0, len(known) < len(values))

    @property
    def features(self) -> list[str]:
        """Names of the features that it becomes."""
        return [self.name, *([f"{self.name} = {MISSING}"] if self.gaps else [])]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """``[N]`` as features ``[N, F]``."""
        empty = np.isnan(values)
        scaled = np.where(empty, 0.0, (values - self.mean) / self.std)
        return np.column_stack([scaled, empty]) if self.gaps else scaled[:, None]


@dataclass(frozen=True)
class Categorical:
    """A column of levels, as one indicator a level; the last stands for every other level.

    Args:
        name: of the column.
        levels: frequent levels of the training rows, as text.
    """

    name: str
    levels: tuple[str, ...]

    @classmethod
    def fit(cls, name: str, values: pd.Series, most: int) -> Self:
        """The ``most`` most frequent levels of the column of text; equally frequent ones in the order of the
        alphabet."""
        counts = values.value_counts()
        return cls(name, tuple(sorted(counts.index, key=lambda level: (-counts[level], level))[:most]))

    @property
    def features(self) -> list[str]:
        """Names of the features that it becomes."""
        return [f"{self.name} = {level}" for level in (*self.levels, OTHER)]

    def _codes(self, values: pd.Series) -> np.ndarray:
        """Number of the level of each row ``[N]``, -1 for every other level."""
        codes: np.ndarray = pd.Index(self.levels, dtype=object).get_indexer(values)
        return codes

    def __call__(self, values: pd.Series) -> np.ndarray:
        """``[N]`` text as features ``[N, F]``."""
        return np.eye(len(self.levels) + 1)[self._codes(values)]  # an unknown level is the last column

    def unknown_levels(self, values: pd.Series) -> str:
        """A sentence where most rows have a level without a feature of its own; else nothing."""
        other = self._codes(values) < 0
        if 2 * other.sum() <= len(values):
            return ""
        return (
            f"column '{self.name}': {int(other.sum())} of {len(values)} rows have a value that training rows have "
            f"seldom or never, such as '{values[other].iloc[0]}'; those count as one. Frequent ones are "
            f"{', '.join(repr(level) for level in self.levels[:5])}"
        )


def as_levels(column: pd.Series) -> pd.Series:
    """A column as text: whole numbers without a point, so that CSV files with and without gaps read alike; blanks at
    the ends do not count, nor how an accented letter is composed (NFC)."""
    numeric = pd.to_numeric(column, errors="coerce") if pd.api.types.is_numeric_dtype(column) else None
    if numeric is not None and not pd.api.types.is_bool_dtype(column):
        whole = numeric.notna() & (numeric == numeric.round())
        text = column.astype(object).where(~whole, numeric.round().astype("Int64").astype(object))
    else:
        text = column.astype(object)
    text = text.map(as_level)
    return text.where(column.notna() & (text != ""), MISSING)


def as_level(value: object) -> str:
    """A value as text, see `as_levels`."""
    return unicodedata.normalize("NFC", str(value)).strip()


@dataclass(frozen=True)
class Encoder:
    """From a table to features ``[N, F]``: the numeric columns, then the categorical ones."""

    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]

    @classmethod
    def fit(cls, numbers: Mapping[str, np.ndarray], levels: Mapping[str, pd.Series], most: int) -> Self:
        """From training rows: values ``[N]`` by numeric column, text ``[N]`` by categorical column."""
        return cls(
            tuple(Numeric.fit(name, values) for name, values in numbers.items()),
            tuple(Categorical.fit(name, values, most) for name, values in levels.items()),
        )

    @property
    def columns(self) -> list[Numeric | Categorical]:
        """All columns, in the order of their features."""
        return [*self.numeric, *self.categorical]

    def read(self, table: pd.DataFrame, *, where: str, first: int) -> np.ndarray:
        """Features ``[N, F]``, float32.

        Raises:
            DataError: a column is missing, or a cell of a numeric one is not a finite number.
        """
        tables.require_columns(table, [each.name for each in self.columns], where)
        parts = [each(tables.numbers(table[each.name], where=where, first=first, gaps=True)) for each in self.numeric]
        parts += [each(as_levels(table[each.name])) for each in self.categorical]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def unknown_levels(self, table: pd.DataFrame) -> list[str]:
        """Sentences about columns of which most values are none that training rows often have."""
        found = [each.unknown_levels(as_levels(table[each.name])) for each in self.categorical]
        return [sentence for sentence in found if sentence]

    def meta(self) -> dict[str, Any]:
        """What `DataInfo.meta` says of the features; see `Scaler.meta`. ``column_widths`` are the features of each
        column."""
        names = [name for each in self.columns for name in each.features]
        scale = {each.name: (each.mean, each.std) for each in self.numeric}
        # An indicator has a name of its own, so that it is never taken for the column it belongs to.
        return {
            "feature_names": names,
            "feature_mean": [scale.get(name, (0.0, 1.0))[0] for name in names],
            "feature_std": [scale.get(name, (0.0, 1.0))[1] for name in names],
            "feature_yes_no": [name not in scale for name in names],
            "column_widths": [len(each.features) for each in self.columns],
        }

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {
            "numeric": [asdict(each) for each in self.numeric],
            "categorical": [{"name": each.name, "levels": list(each.levels)} for each in self.categorical],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Sequence[Mapping[str, Any]]]) -> Self:
        """Inverse of `state`."""
        return cls(
            tuple(Numeric(**each) for each in state["numeric"]),
            tuple(Categorical(each["name"], tuple(each["levels"])) for each in state["categorical"]),
        )
