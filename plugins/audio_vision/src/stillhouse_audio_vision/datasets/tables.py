"""Reading tables of labels; every error names the file and the row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stillhouse.errors import DataError, nearest


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file with a header, at least one row.

    Raises:
        DataError: the file is missing, empty or cannot be parsed.
    """
    if not path.is_file():
        raise DataError("the table does not exist", where=str(path), fix="correct the path")
    try:
        table: pd.DataFrame = pd.read_csv(path)
    except (ValueError, OSError) as error:  # pandas' parsing errors are ValueErrors
        raise DataError(
            f"the table cannot be parsed: {str(error).strip()}", where=str(path), fix="check that it is complete"
        ) from error
    if table.empty:
        raise DataError("the table has no rows", where=str(path), fix="bring a table with at least one row")
    return table


def require_columns(table: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    """Refuse a table without one of the columns.

    Raises:
        DataError: with the nearest column that is there.
    """
    for name in names:
        if name not in table.columns:
            raise DataError(
                f"the table has no column '{name}'", where=str(path), fix=nearest(name, map(str, table.columns))
            )


def whole_numbers(table: pd.DataFrame, column: str, path: Path, *, low: int, high: int) -> np.ndarray:
    """A column ``[N]`` of whole numbers in [low, high].

    Raises:
        DataError: with the first row that is not one.
    """
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    bad = ~np.isfinite(values) | (values != np.round(values)) | (values < low) | (values > high)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"row {row + 2}: {column} is '{table[column].iloc[row]}'",
            where=str(path),
            fix=f"a whole number from {low} to {high}",
        )
    return values.astype(np.int64)


def words(table: pd.DataFrame, column: str, path: Path) -> list[str]:
    """A column ``[N]`` of words, none empty.

    Raises:
        DataError: with the first empty row.
    """
    found = table[column].map(lambda value: "" if pd.isna(value) else str(value).strip()).tolist()
    if "" in found:
        raise DataError(
            f"row {found.index('') + 2}: {column} is empty", where=str(path), fix="fill it, or remove the row"
        )
    return found
