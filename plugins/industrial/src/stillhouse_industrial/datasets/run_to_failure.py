"""The user's own run-to-failure histories: one CSV or Parquet file with a row for each unit and time."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from stillhouse.data.tables import first_row as number_of_first_row
from stillhouse.data.tables import ids as unit_ids
from stillhouse.data.tables import numbers, read_table, refuse, require_columns
from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_industrial.datasets import tables
from stillhouse_industrial.datasets.reader import SignalReader
from stillhouse_industrial.datasets.representation import Shown, represented
from stillhouse_industrial.datasets.windows import (
    Scaler,
    Unit,
    build,
    check_options,
    hold_out,
    refuse_short,
    select,
    varying,
)


def run_to_failure(
    context: DataContext,
    *,
    path: str,
    unit: str = "unit",
    time: str = "time",
    sensors: tuple[str, ...] | None = None,
    settings: tuple[str, ...] = (),
    conditions: int = 1,
    rul: str | None = None,
    time_unit: str = "cycles",
    window: int = 30,
    stride: int = 1,
    cap: float | None = 125.0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    cuts: int = 20,
    first: int | None = None,
    short: Literal["pad", "raise"] = "pad",
    missing: Literal["raise", "forward"] = "raise",
    features: Shown = "raw",
) -> Splits:
    """Windows of one's own histories. Every unit is in one split only; rows are never split.

    Validation and test units are each truncated at random times, as if met in service. Without a ``rul``
    column each unit must have been run to failure: its last row is taken as the failure.

    Args:
        context: the folder that ``path`` is relative to, and the seed of the split.
        path: the ``.csv`` or ``.parquet`` file.
        unit: column with the unit's id.
        time: column with the time or cycle, a number that increases within a unit.
        sensors: columns of the signals; by default all other numeric columns that vary within the training
            units.
        settings: columns of the operating settings.
        conditions: operating conditions to standardise apart, found by k-means on the settings of training
            units.
        rul: column with the remaining useful life of each row, for units that have not failed.
        time_unit: unit of ``time``, e.g. hours.
        window: rows that a model sees.
        stride: rows between neighbouring training windows.
        cap: largest RUL; None keeps the full value.
        val_fraction: share of the units held out for validation.
        test_fraction: share of the units held out for testing.
        cuts: random truncations of each validation and test unit.
        first: fewest rows seen at a training window or truncation; below ``window`` these are padded in front,
            as a young unit's are. By default ``window``.
        short: what to do with units shorter than the window: repeat their first row, or raise an error.
        missing: what to do with empty cells of signals and settings: raise an error, or repeat the unit's last value
            before them (the first after them where there is none); new files are then filled alike.
        features: what a model is shown of a window: "raw" samples; six "statistics" of each signal; or
            its "spectrum", for vibration, current and sound, where a frequency tells and no single sample does.

    Raises:
        DataError: the file cannot be used, or the options leave no rows.
    """
    check_options(window, stride, cuts, cap, first)
    if val_fraction <= 0 or test_fraction <= 0 or val_fraction + test_fraction >= 1:
        raise DataError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave no split of units",
            fix="both above 0 and their sum below 1, e.g. 0.2 each",
        )
    if conditions > 1 and not settings:
        raise DataError(f"{conditions} operating conditions need the settings' columns", fix="set dataset.settings")
    # The units, as their file has them.
    source = context.base / Path(path)
    units, names, others = _units(
        source, unit=unit, time=time, sensors=sensors, settings=settings, rul=rul, missing=missing
    )
    _refuse_few(units, window, str(source), short=short)
    # Split by unit, scaled by training units; of signals that nobody named, those that vary within them.
    random = np.random.default_rng(context.seed)
    rest, test = hold_out(units, test_fraction, random)
    train, val = hold_out(rest, val_fraction / (1 - test_fraction), random)
    scaler = Scaler.fit(train, conditions=conditions, seed=context.seed)
    if sensors is None:
        columns = np.flatnonzero(varying(train, scaler))
        if not len(columns):
            raise DataError(
                "no numeric column varies within the training units", where=str(source), fix="name the sensors"
            )
        train, val, test = (select(group, columns) for group in (train, val, test))
        others += [name for at, name in enumerate(names) if at not in columns]
        names = [names[column] for column in columns]
        scaler = Scaler.fit(train, conditions=conditions, seed=context.seed)
    # Windows, and a reader that makes the same of new files.
    splits = build(
        train,
        val,
        test,
        scaler,
        window=window,
        stride=stride,
        cap=cap,
        cuts=cuts,
        test_cuts=cuts,
        first=first,
        random=random,
        sensors=names,
        unit=time_unit,
        description=f"{source.name}: windows of {window} rows of {len(units)} units ({len(train)} for training, "
        f"{len(val)} for validation, {len(test)} for test), signals: {', '.join(names)}"
        + (f"; not used: {', '.join(others)}" if others else "")
        + ("" if cap is None else f"; more than {cap:g} {time_unit} left count as {cap:g}"),
    )
    _tell_of_cap(splits, cap, time_unit)
    splits, representation = represented(splits, features)
    reader = SignalReader(
        window=window,
        sensors=names,
        settings=settings,
        scaler=scaler,
        unit=unit,
        time=time,
        short=short,
        missing=missing,
        representation=representation,
    )
    return replace(splits, reader=reader)


MOST_AT_CAP = 0.75
"""Share of the training rows at the cap from which a warning tells of it; C-MAPSS has about half of them there."""


def _tell_of_cap(splits: Splits, cap: float | None, time_unit: str) -> None:
    if cap is None:
        return
    share = float((splits.train.columns(["target"])["target"] >= cap).double().mean())
    if share > MOST_AT_CAP:
        warnings.warn(
            f"{100 * share:.0f} % of the training rows have dataset.cap ({cap:g} {time_unit}) left or more, and count "
            f"as {cap:g}: a model of them says {cap:g} nearly always; raise dataset.cap to what is worth knowing, or "
            "set it to null",
            stacklevel=3,
        )


def _units(
    source: Path,
    *,
    unit: str,
    time: str,
    sensors: tuple[str, ...] | None,
    settings: tuple[str, ...],
    rul: str | None,
    missing: str,
) -> tuple[list[Unit], list[str], list[str]]:
    """The units of a file, the names of their signals, and the columns that are neither signals nor anything else; see
    `run_to_failure`.

    Raises:
        DataError: the file cannot be used.
    """
    raw = read_table(source)
    first_row = number_of_first_row(source)
    where = str(source)
    require_columns(raw, [unit, time, *(sensors or ()), *settings, *([rul] if rul else [])], where)
    taken = {unit, time, rul, *settings}
    if sensors and set(sensors) & taken:
        raise DataError(
            f"{sorted(set(sensors) & taken)} cannot be a sensor as well",
            where=where,
            fix="remove it from sensors",
        )
    names = (
        list(sensors)
        if sensors
        else [str(name) for name in raw.columns if name not in taken and pd.api.types.is_numeric_dtype(raw[name])]
    )
    if sensors is None:
        refuse_nearly_numeric(raw, taken | set(names), where=where, first=first_row)
        refuse_answers(names, where)
    if not names:
        raise DataError("there is no numeric column for the signals", where=where, fix="name them in dataset.sensors")
    tables.refuse_dates(raw[time], where=where, first_row=first_row)
    ids = unit_ids(raw[unit], where=where, first=first_row)
    if missing == "forward":
        raw = tables.filled(raw, ids, [*settings, *names], where=where)
    for name in [*settings, *names]:
        fix = "fill it, remove the row, or let dataset.missing=forward repeat the unit's last value"
        refuse(raw[name].isna().to_numpy(), raw[name], "a finite number", where=where, first=first_row, fix=fix)
    table = tables.numbers(
        raw,
        list(dict.fromkeys([time, *settings, *names, *([rul] if rul else [])])),
        where=where,
        first_row=first_row,
    )
    table[unit] = ids
    life = table[rul].to_numpy() if rul else None
    if life is not None and (life < 0).any():
        row = int(np.argmax(life < 0))
        raise DataError(
            f"row {row + first_row}, column '{rul}' is negative",
            where=where,
            fix="remaining life is at least 0",
        )
    units = tables.units_of(
        table,
        unit=unit,
        time=time,
        sensors=names,
        settings=settings,
        rul=life,
        where=where,
        first_row=first_row,
    )
    return units, names, [str(name) for name in raw.columns if name not in taken | set(names)]


def _refuse_few(units: list[Unit], window: int, where: str, *, short: str) -> None:
    """Refuse units that are too few to split, or most of which are shorter than the window.

    Raises:
        DataError: they are.
    """
    if len(units) < 3:
        raise DataError(
            f"{len(units)} unit(s) cannot be split into training, validation and test",
            where=where,
            fix="bring three units at least; some dozens are needed to judge a model",
        )
    if short == "raise":
        refuse_short(units, window, where)
    shorter = sum(len(each) < window for each in units)
    if 2 * shorter > len(units):
        raise DataError(
            f"{shorter} of {len(units)} units have fewer rows than the window of {window}: they would be judged at "
            "their last row only",
            where=where,
            fix=f"set dataset.window to at most {int(np.median([len(each) for each in units]))}",
        )


ANSWERS = ("rul", "ttf", "failed", "failure", "fault", "label", "target")
"""Names of columns that tell when a unit fails: they are no signals."""


def refuse_answers(names: Sequence[str], where: str) -> None:
    """Refuse to take a column by default whose name says that it is the answer.

    Raises:
        DataError: naming it.
    """
    for name in names:
        if name.lower() in ANSWERS or name.lower().startswith("remaining"):
            raise DataError(
                f"column '{name}' sounds like the answer, and would be taken for a signal",
                where=where,
                fix="set dataset.rul to it, or list the signals in dataset.sensors",
            )


def refuse_nearly_numeric(raw: pd.DataFrame, taken: Collection[str | None], *, where: str, first: int) -> None:
    """Refuse to leave out a column of text by default in which most cells are numbers.

    Raises:
        DataError: naming the first cell that is none.
    """
    for name in raw.columns:
        if name in taken or pd.api.types.is_numeric_dtype(raw[name]):
            continue
        cells = raw[name].dropna().astype(str)
        decimal = pd.to_numeric(cells.str.replace(",", ".", regex=False), errors="coerce")
        if len(cells) and 2 * int(decimal.notna().sum()) > len(cells):
            numbers(raw[name], where=where, first=first, gaps=True)
