"""Tables of users: CSV, Parquet and JSON Lines files, and columns that are what they should be. Every error names the
file, the row and the column."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from stillhouse.errors import DataError, MissingDependencyError, nearest

SUFFIXES = (".csv", ".parquet", ".jsonl")
"""Types of files that `read_table` reads."""
_SHOWN = 80
"""Characters of a value that an error shows."""


def read_table(path: Path, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """A ``.csv``, ``.parquet`` or ``.jsonl`` file as it stands; its rows are numbered from `first_row`.

    A CSV file has a header; its columns are separated by commas, semicolons or tabs.

    Args:
        path: the file.
        texts: columns of text, in which nothing is taken for a number or, like "NA" and "None", for a gap.

    Raises:
        DataError: the file is missing, of another type, empty or unreadable, or a row of a CSV file has more or fewer
            fields than the header, or is blank.
        MissingDependencyError: no package that reads Parquet is installed.
    """
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        raise DataError("this is a folder, not a file", where=str(path), fix="give the file with the rows")
    if suffix not in SUFFIXES:
        raise DataError(
            f"'{path.suffix}' files cannot be read here",
            where=str(path),
            fix=f"bring {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}",
        )
    if not os.path.isfile(path):  # Path.is_file raises where the name is longer than the file system takes
        raise DataError("the file does not exist", where=str(path), fix="correct the path")
    try:
        table = _parsed(path, suffix, texts)
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files need the package 'pyarrow'", where=str(path), fix="pip install pyarrow"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file is not UTF-8: {error}", where=str(path), fix="save it as UTF-8 (CSV UTF-8 in a spreadsheet)"
        ) from error
    except pd.errors.EmptyDataError as error:
        raise DataError("the file is empty", where=str(path), fix="bring a file with at least one row") from error
    except (ValueError, OSError) as error:  # the parsing errors of pandas and pyarrow are ValueErrors
        raise DataError(
            f"the file cannot be parsed: {str(error).strip()}",
            where=str(path),
            fix="check that it is complete, and a table in UTF-8 with a header; get it again",
        ) from error
    if table.empty:
        raise DataError("the file has no rows", where=str(path), fix="bring a file with at least one row")
    return table.reset_index(drop=True)


def _parsed(path: Path, suffix: str, texts: Sequence[str]) -> pd.DataFrame:
    if suffix == ".parquet":
        return pd.read_parquet(path)
    if suffix == ".jsonl":
        return pd.read_json(path, lines=True, encoding="utf-8", dtype=not texts)
    separator = _separator(path)
    table: pd.DataFrame = pd.read_csv(path, sep=separator)
    _refuse_ragged(path, separator, table)
    if there := [name for name in texts if name in table.columns]:
        table[there] = pd.read_csv(path, sep=separator, usecols=there, dtype=str, keep_default_na=False)[there]
    return table


def _refuse_ragged(path: Path, separator: str, table: pd.DataFrame) -> None:
    """Refuse rows with more fields than the header, of which pandas makes an index and moves every value by a column;
    with fewer, which it fills up; and blank lines between rows, which it leaves out of the count of rows."""
    width, where = table.shape[1], str(path)
    with path.open("rb") as file:
        lines = sum(piece.count(b"\n") for piece in iter(lambda: file.read(2**20), b""))
    # No line is blank, and no row is short, which would have no last field: then the first row tells of all of them.
    sound = lines <= len(table) + 1 and not table.iloc[:, -1].isna().any()
    blank: int | None = None
    with path.open(encoding="utf-8-sig", newline="") as file, suppress(csv.Error):  # e.g. a text beyond csv's limit
        for row, fields in enumerate(csv.reader(file, delimiter=separator), 1):
            if not fields:
                blank = row if blank is None else blank
            elif blank is not None:
                raise DataError(
                    f"row {blank} is a blank line", where=where, fix="remove it, so that rows have their numbers"
                )
            elif len(fields) > width:
                raise DataError(
                    f"row {row} has {len(fields)} fields, and the header {width}",
                    where=where,
                    fix="name every column in the header, and remove separators at the ends of rows",
                )
            elif len(fields) < width:
                raise DataError(
                    f"row {row} has {len(fields)} of {width} fields",
                    where=where,
                    fix="complete it, with a separator for each empty cell; get the file again if it was cut off",
                )
            elif sound and row > 1:
                return


def _separator(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
    return "," if "," in header else next((each for each in ";\t" if each in header), ",")


def first_row(path: Path) -> int:
    """Number of the first data row as an editor shows it: a CSV file has its header in line 1."""
    return 2 if path.suffix.lower() == ".csv" else 1


def require_columns(table: pd.DataFrame, names: Sequence[str], where: str) -> None:
    """Refuse a table without the columns ``names``.

    Raises:
        DataError: naming those that are missing, and the nearest that exists.
    """
    missing = [name for name in names if name not in table.columns]
    if missing:
        there = [str(name) for name in table.columns]
        one = len(missing) == 1
        what = f"there is no column '{missing[0]}'" if one else f"there are no columns {', '.join(map(repr, missing))}"
        raise DataError(what, where=where, fix=_column_fix(missing, [name for name in there if name not in names]))


def _column_fix(missing: Sequence[str], others: Sequence[str]) -> str:
    """What to do about missing columns, given the columns that nobody asked for."""
    by_case = {name.casefold(): name for name in others}
    if all(name.casefold() in by_case for name in missing) and len(missing) > 1:
        return f"upper and lower case count: rename '{by_case[missing[0].casefold()]}' to '{missing[0]}', and so on"
    close = nearest(missing[0], others) if others and len(missing) == 1 else ""
    if close.startswith("did you mean"):
        return close
    add = f"add {'it' if len(missing) == 1 else 'them'} to the file"
    return add + (f"; beside others it has {', '.join(others[:12])}" if others else "")


def refuse(bad: np.ndarray, column: pd.Series, what: str, *, where: str, first: int, fix: str) -> None:
    """Refuse the rows marked in ``bad`` ``[N]``; the message shows the first of them.

    Args:
        bad: which rows.
        column: of a table as it was read.
        what: what the values are not, e.g. ``"a date"``.
        where: the file, for errors.
        first: number of the table's first row in the file.
        fix: what to do.

    Raises:
        DataError: any is marked.
    """
    if bad.any():
        row = int(np.argmax(bad))
        more = f" ({int(bad.sum())} such rows)" if bad.sum() > 1 else ""
        value = column.iloc[row]
        shown = "an empty cell" if pd.isna(value) else f"'{_shortened(str(value))}'"
        raise DataError(f"row {row + first}, column '{column.name}': {shown} is not {what}{more}", where=where, fix=fix)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


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
    values: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if gaps:
        bad &= ~column.isna().to_numpy()
    fix = "remove the row, or fill the gap with a value that you can defend"
    if bad.any() and not pd.isna(value := column.iloc[int(np.argmax(bad))]):
        fix = "write decimals with a point, e.g. 3.5" if "," in str(value) else "correct the value, or remove the row"
    refuse(bad, column, "a finite number", where=where, first=first, fix=fix)
    return values


def whole_numbers(column: pd.Series, *, low: int, high: int, where: str, first: int) -> np.ndarray:
    """The column of whole numbers in [low, high] as int64 ``[N]``.

    Raises:
        DataError: with the first row that is not one.
    """
    values: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values) | (values != np.round(values)) | (values < low) | (values > high)
    refuse(bad, column, f"a whole number from {low} to {high}", where=where, first=first, fix="correct the value")
    return values.astype(np.int64)


def ids(column: pd.Series, *, where: str, first: int) -> pd.Series:
    """The column of ids, numbers or text.

    Raises:
        DataError: one is missing.
    """
    refuse(column.isna().to_numpy(), column, "an id", where=where, first=first, fix="each row needs one")
    return column


def words(column: pd.Series, *, where: str, first: int) -> list[str]:
    """The column of texts without blanks around them.

    Raises:
        DataError: one is empty.
    """
    found = column.map(lambda value: "" if pd.isna(value) else str(value).strip())
    empty = (found == "").to_numpy()
    refuse(empty, column.where(~empty), "a text", where=where, first=first, fix="fill it, or remove the row")
    return [str(value) for value in found]


def files(column: pd.Series, folder: Path, *, where: str, first: int) -> list[Path]:
    """The files that the column names, relative to ``folder``.

    Raises:
        DataError: a name is empty, or there is no such file (nor can be: its name is too long, say).
    """
    paths = [folder / name for name in words(column, where=where, first=first)]
    gone = np.array([not os.path.isfile(path) for path in paths], dtype=bool)
    refuse(gone, column, f"a file in {folder}", where=where, first=first, fix="add the file, or correct its name")
    return paths
