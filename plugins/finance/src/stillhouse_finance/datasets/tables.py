"""Reading CSV and Parquet; every error names the file, the row and the column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stillhouse.errors import DataError, nearest

READERS: dict[str, Callable[..., pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
"""By suffix of the file."""


def read_table(path: Path) -> pd.DataFrame:
    """A ``.csv`` or ``.parquet`` file as it stands; its rows are numbered from `first_row`.

    Raises:
        DataError: the file is missing, of another type, empty or unreadable.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"'{path.suffix}' files cannot be read here", where=str(path), fix="bring .csv or .parquet")
    if not path.is_file():
        raise DataError("the file does not exist", where=str(path), fix="correct the path")
    try:
        table = reader(path)
    except (ValueError, OSError) as error:  # the parsing errors of pandas and pyarrow are ValueErrors
        raise DataError(
            f"the file cannot be parsed: {error}", where=str(path), fix="check that it is complete; get it again"
        ) from error
    if table.empty:
        raise DataError("the file has no rows", where=str(path), fix="bring a file with at least one row")
    return table.reset_index(drop=True)


def first_row(path: Path) -> int:
    """Number of the first data row as an editor shows it: a CSV file has its header in line 1."""
    return 2 if path.suffix.lower() == ".csv" else 1


def require_columns(table: pd.DataFrame, names: Sequence[str], where: str) -> None:
    """Refuse a table without the columns ``names``.

    Raises:
        DataError: naming the first that is missing, and the nearest that exists.
    """
    for name in names:
        if name not in table.columns:
            raise DataError(f"there is no column '{name}'", where=where, fix=nearest(name, map(str, table.columns)))


def refuse(bad: np.ndarray, column: pd.Series, what: str, *, where: str, first: int, fix: str) -> None:
    """Refuse the rows marked in ``bad`` ``[N]``; the message shows the first of them.

    Raises:
        DataError: any is marked.
    """
    if bad.any():
        row = int(np.argmax(bad))
        more = f" ({int(bad.sum())} such rows)" if bad.sum() > 1 else ""
        value = column.iloc[row]
        shown = "an empty cell" if pd.isna(value) else f"'{value}'"
        raise DataError(f"row {row + first}, column '{column.name}': {shown} is not {what}{more}", where=where, fix=fix)


def numbers(column: pd.Series, *, where: str, first: int, gaps: bool = False) -> np.ndarray:
    """The column as float64 ``[N]``.

    Args:
        column: of a table as it was read.
        where: the file, for errors.
        first: number of the table's first row in the file, for errors.
        gaps: empty cells are allowed, and become NaN.

    Raises:
        DataError: a value is infinite or not a number, or missing though ``gaps`` are not allowed.
    """
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if gaps:
        bad &= ~column.isna().to_numpy()
    fix = "remove the row, or fill the gap with a value that you can defend"
    refuse(bad, column, "a finite number", where=where, first=first, fix=fix)
    return values


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


def ids(column: pd.Series, *, where: str, first: int) -> pd.Series:
    """The column of ids, numbers or text.

    Raises:
        DataError: one is missing.
    """
    refuse(column.isna().to_numpy(), column, "an id", where=where, first=first, fix="each row needs one")
    return column


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
