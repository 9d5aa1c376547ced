"""NASA C-MAPSS: simulated turbofan engines run to failure (Saxena, Goebel, Simon & Eklund, PHM 2008)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_industrial.datasets import tables
from stillhouse_industrial.datasets.reader import SignalReader
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

USUAL_SENSORS = (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
"""The 14 sensors of FD001 and FD003 that the literature keeps; the other seven are constant or nearly so."""
CONDITIONS = {"FD001": 1, "FD002": 6, "FD003": 1, "FD004": 6}
HOMEPAGE = "https://data.nasa.gov/dataset/cmapss-jet-engine-simulated-data"
PUBLISHED = (
    f"they are published by the NASA Prognostics Center of Excellence data repository ({HOMEPAGE}) as"
    " 'C-MAPSS Jet Engine Simulated Data' (CMAPSSData.zip)"
)


def cmapss(
    context: DataContext,
    *,
    subset: Literal["FD001", "FD002", "FD003", "FD004"] = "FD001",
    window: int = 30,
    stride: int = 1,
    sensors: tuple[int, ...] | None = None,
    cap: float | None = 125.0,
    val_fraction: float = 0.2,
    cuts: int = 20,
    first: int | None = None,
    conditions: int | None = None,
    short: Literal["pad", "raise"] = "pad",
    fleets: bool = False,
) -> Splits:
    """Windows of the official files ``train_*.txt``, ``test_*.txt`` and ``RUL_*.txt`` of one subset.

    Training: all windows of the training units. Validation: units held out from the training file, each
        truncated at random cycles. Test: the last window of each official test unit, the protocol of the
        literature. The scaler is fitted on training units only.

    Args:
        context: where the files are, and the seed of the split.
        subset: FD001 (one operating condition, one fault mode), FD002 (six, one), FD003 (one, two), FD004
            (six, two).
        window: cycles that a model sees.
        stride: cycles between neighbouring training windows.
        sensors: numbers of the sensors to keep, 1 to 21; by default the usual 14 for FD001 and FD003, and for
            FD002 and FD004 all that vary within an operating condition of the training units.
        cap: largest RUL; None keeps the full value.
        val_fraction: share of the training file's units held out for validation.
        cuts: random truncations of each validation unit.
        first: fewest rows seen at a training window or truncation; below ``window`` these are padded in front,
            as a young unit's are. By default ``window``.
        conditions: operating conditions to standardise apart, found by k-means on the settings of training
            units; by default 6 for FD002 and FD004, else 1.
        short: what to do with units shorter than the window: repeat their first row, or raise an error.
        fleets: rows have the entry ``fleet``, the operating condition in which their unit flew more than the others,
            for `core/federated` with clients that are such fleets.

    Raises:
        DataError: files are missing or malformed, or the options leave no rows.
    """
    check_options(window, stride, cuts, cap, first)
    paths = {name: context.root / f"{name}_{subset}.txt" for name in ("train", "test", "RUL")}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"C-MAPSS {subset} is not there: missing {', '.join(missing)}",
            where=str(context.root),
            fix=f"put the official files into that folder; {PUBLISHED}",
        )
    history, test = official_units(paths["train"], paths["test"], paths["RUL"])
    if short == "raise":
        refuse_short(history, window, str(paths["train"]))
        refuse_short(test, window, str(paths["test"]))
    random = np.random.default_rng(context.seed)
    train, val = hold_out(history, val_fraction, random)
    if not val:
        raise DataError(
            "val_fraction is 0, but the best epoch is chosen on validation units",
            fix="set val_fraction to e.g. 0.2",
        )
    conditions = conditions or CONDITIONS[subset]
    columns = _sensor_columns(sensors, conditions, train, context.seed)
    train, val, test = (select(units, columns) for units in (train, val, test))
    scaler = Scaler.fit(train, conditions=conditions, seed=context.seed)
    names = [tables.SENSORS[column] for column in columns]
    splits = build(
        train,
        val,
        test,
        scaler,
        window=window,
        stride=stride,
        cap=cap,
        cuts=cuts,
        test_cuts=None,
        first=first,
        fleets=fleets,
        random=random,
        sensors=names,
        unit="cycles",
        description=f"C-MAPSS {subset}: windows of {window} cycles, {len(names)} sensors of turbofans",
    )
    reader = SignalReader(
        window=window,
        sensors=names,
        settings=tables.SETTINGS,
        scaler=scaler,
        unit="unit",
        time="cycle",
        short=short,
    )
    return Splits(
        info=splits.info,
        train=splits.train,
        val=splits.val,
        test=splits.test,
        reader=reader,
    )


def official_units(train_path: Path, test_path: Path, rul_path: Path) -> tuple[list[Unit], list[Unit]]:
    """Units of the training file, run to failure, and of the test file, truncated, with the RUL that follows.

    Raises:
        DataError: a file is malformed; see `tables`.
    """
    made = []
    offset = 0
    for path, prefix in ((train_path, "train-"), (test_path, "test-")):
        table = tables.read_cmapss(path)
        made.append(
            tables.units_of(
                table,
                unit="unit",
                time="cycle",
                sensors=tables.SENSORS,
                settings=tables.SETTINGS,
                prefix=prefix,
                first_index=offset,
                where=str(path),
                first_row=1,
            )
        )
        offset += len(table)
    train, test = made
    return train, with_remaining(test, tables.read_rul(rul_path, len(test)))


def with_remaining(units: list[Unit], remaining: np.ndarray) -> list[Unit]:
    """The units with ``remaining`` cycles ``[len(units)]`` after the last row of each added to their RUL."""
    return [replace(unit, rul=unit.rul + after) for unit, after in zip(units, remaining, strict=True)]


def _sensor_columns(sensors: tuple[int, ...] | None, conditions: int, train: list[Unit], seed: int) -> np.ndarray:
    if sensors is None and conditions == 1:
        sensors = USUAL_SENSORS
    if sensors is None:
        return np.flatnonzero(varying(train, Scaler.fit(train, conditions=conditions, seed=seed)))
    wrong = [number for number in sensors if not 1 <= number <= len(tables.SENSORS)]
    if wrong or len(set(sensors)) != len(sensors) or not sensors:
        raise DataError(
            f"sensors {list(sensors)} are not distinct numbers from 1 to 21",
            fix="e.g. sensors: [2, 3, 4, 7, 11]",
        )
    return np.array(sensors) - 1
