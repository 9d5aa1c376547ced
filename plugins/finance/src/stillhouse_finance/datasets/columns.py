"""Columns of dates and of labels; every error names the file, the row and the column."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stillhouse.data.tables import refuse


def times(column: pd.Series, *, where: str, first: int) -> pd.Series:
    """The column as datetime64 without a time zone.

    Raises:
        DataError: a value is missing or not a date.
    """
    numeric = pd.api.types.is_numeric_dtype(column)
    parsed = pd.to_datetime(column, errors="coerce", format=None if numeric else "ISO8601")
    fix = "write dates as 2018-07-25 or 2018-07-25 13:05:00"
    bad = np.ones(len(column), dtype=bool) if numeric else parsed.isna().to_numpy()
    refuse(bad, column, "a date", where=where, first=first, fix=fix)
    return parsed.dt.tz_localize(None) if parsed.dt.tz is not None else parsed


def moments(column: pd.Series, *, where: str, first: int) -> np.ndarray:
    """The column of dates as seconds since 1970 ``[N]``, float64.

    Raises:
        DataError: a value is missing or not a date.
    """
    parsed = times(column, where=where, first=first)
    return parsed.to_numpy().astype("datetime64[ms]").astype(np.float64) / 1000


def flags(column: pd.Series, *, where: str, first: int, gaps: bool = False) -> np.ndarray:
    """The column of labels 0 and 1 (or false and true) as int64 ``[N]``.

    Args:
        column: of a table as it was read.
        where: the file, for errors.
        first: number of the table's first row in the file, for errors.
        gaps: empty cells are allowed, and become 0.

    Raises:
        DataError: a label is neither 0 nor 1, or missing though ``gaps`` are not allowed.
    """
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isin(values, (0.0, 1.0))
    if gaps:
        bad &= ~column.isna().to_numpy()
    refuse(bad, column, "0 or 1", where=where, first=first, fix="correct the label; 1 is the event to find")
    return np.nan_to_num(values).astype(np.int64)
