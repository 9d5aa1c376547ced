"""Reading histories from C-MAPSS and Tennessee Eastman text files, and from tables; every error names file and row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse_industrial.datasets.windows import Unit

SETTINGS = tuple(f"setting_{number}" for number in range(1, 4))
SENSORS = tuple(f"sensor_{number}" for number in range(1, 22))
COLUMNS = ("unit", "cycle", *SETTINGS, *SENSORS)
"""Names that we give to the 26 columns of a C-MAPSS file."""

TEP_VARIABLES = (*(f"xmeas_{number}" for number in range(1, 42)), *(f"xmv_{number}" for number in range(1, 12)))
"""The 41 measured and 11 manipulated variables of the Tennessee Eastman process, in the order of its files."""


def read_cmapss(path: Path) -> pd.DataFrame:
    """One ``train_*.txt`` or ``test_*.txt`` of C-MAPSS: 26 columns separated by blanks, without a header.

    Raises:
        DataError: a row has another number of columns (a truncated file), or a value is not a finite number.
    """
    raw = _read_blanks(path, len(COLUMNS) + 1)
    fields = raw.notna().sum(axis=1).to_numpy()
    wrong = np.flatnonzero(fields != len(COLUMNS))
    if len(wrong):
        row = int(wrong[0])
        cut_off = (
            " (the file ends in the middle of a row)" if row == len(raw) - 1 and fields[row] < len(COLUMNS) else ""
        )
        raise DataError(
            f"row {row + 1} has {fields[row]} columns, not {len(COLUMNS)}{cut_off}",
            where=str(path),
            fix="get the file again from where it is published",
        )
    table = raw.iloc[:, : len(COLUMNS)]
    table.columns = pd.Index(COLUMNS)
    return numbers(table, COLUMNS, where=str(path), first_row=1)


def read_rul(path: Path, units: int) -> np.ndarray:
    """One ``RUL_*.txt`` of C-MAPSS ``[units]``: the remaining cycles after the last row of each test unit.

    Raises:
        DataError: there is not one finite number, at least 0, for each of the ``units``.
    """
    raw = _read_blanks(path, 2)
    if raw[1].notna().any():
        row = int(np.flatnonzero(raw[1].notna())[0])
        raise DataError(
            f"row {row + 1} has more than one value",
            where=str(path),
            fix="one integer a row, one row a test unit",
        )
    values = numbers(raw[[0]].set_axis(["RUL"], axis=1), ["RUL"], where=str(path), first_row=1)["RUL"].to_numpy()
    if len(values) != units:
        raise DataError(
            f"{len(values)} values for {units} test units",
            where=str(path),
            fix="RUL_*.txt and test_*.txt must be of the same subset and complete",
        )
    if (values < 0).any():
        raise DataError(
            f"row {int(np.argmax(values < 0)) + 1} is negative",
            where=str(path),
            fix="remaining cycles are at least 0",
        )
    return values


def read_tep(path: Path) -> np.ndarray:
    """One ``.dat`` file of the Tennessee Eastman process, ``[samples, 52]``; ``d00.dat`` is stored transposed.

    Raises:
        DataError: the file is missing, neither side has 52 values, or a value is not a finite number.
    """
    if not path.is_file():
        raise DataError("the file does not exist", where=str(path), fix="correct the path")
    widest = max((len(line.split()) for line in path.read_text(encoding="latin-1").splitlines()), default=0)
    raw = _read_blanks(path, max(widest, 1))
    again = "get the file again from where it is published"
    short = np.flatnonzero(raw.notna().sum(axis=1).to_numpy() != widest)
    if len(short):
        found = int(raw.iloc[short[0]].notna().sum())
        raise DataError(f"row {short[0] + 1} has {found} values, not {widest}", where=str(path), fix=again)
    if len(TEP_VARIABLES) not in raw.shape:
        raise DataError(
            f"the file has {raw.shape[0]} rows and {raw.shape[1]} columns, and neither is {len(TEP_VARIABLES)}",
            where=str(path),
            fix=again,
        )
    raw.columns = pd.Index([f"column {number + 1}" for number in range(raw.shape[1])])
    values: np.ndarray = numbers(raw, list(raw.columns), where=str(path), first_row=1).to_numpy()
    return values if raw.shape[1] == len(TEP_VARIABLES) else values.T


def numbers(table: pd.DataFrame, names: Sequence[str], *, where: str, first_row: int) -> pd.DataFrame:
    """The columns ``names`` as float64; ``first_row`` is the number of the table's first row in the file.

    Raises:
        DataError: a value is missing, infinite, or not a number.
    """
    found = {name: tables.numbers(table[name], where=where, first=first_row) for name in names}
    return pd.DataFrame(found, columns=list(names))


def refuse_dates(column: pd.Series, *, where: str, first_row: int) -> None:
    """Refuse a column of times that holds dates: it counts, in cycles or hours.

    Raises:
        DataError: showing the first.
    """
    if pd.api.types.is_numeric_dtype(column) or not len(column):
        return
    shown = str(column.iloc[0])
    if pd.api.types.is_datetime64_any_dtype(column) or (
        pd.isna(pd.to_numeric(shown, errors="coerce")) and not pd.isna(pd.to_datetime(shown, errors="coerce"))
    ):
        raise DataError(
            f"row {first_row}, column '{column.name}': '{shown}' is a date, and time is a number here",
            where=where,
            fix="bring a column of cycles or hours, e.g. hours since the unit's first row",
        )


def filled(table: pd.DataFrame, unit: pd.Series, names: Sequence[str], *, where: str) -> pd.DataFrame:
    """The table with empty cells of the columns ``names`` filled by the unit's last value before them, or its first.

    Raises:
        DataError: a unit has no value at all in a column.
    """
    names = list(dict.fromkeys(names))
    groups = table[names].groupby(unit.to_numpy(), sort=False)
    found = groups.ffill().fillna(groups.bfill())
    for name in names:
        empty = found[name].isna().to_numpy()
        if empty.any():
            raise DataError(
                f"unit '{_plain(unit[empty].iloc[0])}' has no value in column '{name}'",
                where=where,
                fix="leave the unit out, or the column by listing the others in dataset.sensors",
            )
    return table.assign(**{name: found[name] for name in names})


def units_of(
    table: pd.DataFrame,
    *,
    unit: str,
    time: str,
    sensors: Sequence[str],
    settings: Sequence[str] = (),
    rul: np.ndarray | None = None,
    prefix: str = "",
    first_index: int = 0,
    where: str,
    first_row: int,
) -> list[Unit]:
    """Histories of a table of finite numbers (unit ids may be anything), in order of appearance.

    Args:
        table: rows of all units; those of a unit in order of time.
        unit: column with the unit's id.
        time: column with the cycle or time, increasing within a unit.
        sensors: columns of the signals.
        settings: columns of the operating settings.
        rul: remaining useful life of each row; without it a unit ends in failure, at its last row.
        prefix: put before the unit's id.
        first_index: stable number of the table's first row.
        where: the file, for errors.
        first_row: number of the table's first row in the file, for errors.

    Raises:
        DataError: times repeat or go back within a unit.
    """
    units = []
    for name, positions in table.groupby(unit, sort=False).indices.items():
        rows = np.sort(positions)
        times = table[time].to_numpy(dtype=np.float64)[rows]
        back = np.flatnonzero(np.diff(times) <= 0)
        if len(back):
            at = int(back[0]) + 1
            before = times[at - 1]
            what = "repeats" if times[at] == before else "goes back after"
            raise DataError(
                f"row {rows[at] + first_row}: {time} {times[at]:g} of unit {_plain(name)} {what} {before:g}",
                where=where,
                fix=f"each unit needs one row a {time}, in increasing order",
            )
        units.append(
            Unit(
                name=f"{prefix}{_plain(name)}",
                times=times,
                signals=table[list(sensors)].to_numpy(dtype=np.float64)[rows],
                settings=table[list(settings)].to_numpy(dtype=np.float64)[rows],
                rul=times[-1] - times if rul is None else rul[rows],
                first_row=first_index,
            )
        )
        first_index += len(rows)
    return units


def _plain(name: object) -> str:
    return f"{name:g}" if isinstance(name, float) else str(name)


def _read_blanks(path: Path, columns: int) -> pd.DataFrame:
    """Fields of a headerless file separated by blanks, as text; missing ones are NaN."""
    again = "get the file again from where it is published"
    try:
        fields = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            names=range(columns),
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            index_col=False,
            encoding_errors="replace",
        )
    except pd.errors.ParserError as error:
        reason = f"a row has too many columns: {str(error).strip()}"
        raise DataError(reason, where=str(path), fix=again) from error
    if fields.empty:
        raise DataError("the file is empty", where=str(path), fix=again)
    return fields
