"""Volatility of the days ahead: the CBOE VIX, or another daily index of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date as Date
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit
from stillhouse_finance.datasets.columns import times
from stillhouse_finance.datasets.scaling import Scaler

HOMEPAGE = "https://www.cboe.com/tradable_products/vix/vix_historical_data/"
MEANS, CHANGES, SPREADS = (5, 22, 66, 252), (1, 2, 5, 10, 22), (5, 22, 66)
"""Days over which features take means of the level, changes of it, and standard deviations of its daily change."""
HISTORY = max(*MEANS, *(days + 1 for days in (*CHANGES, *SPREADS)))
"""Days that a row's features reach back, the present one among them."""


@dataclass(frozen=True, kw_only=True)
class DailyColumns:
    """Names of the columns of a daily index; the defaults are those of CBOE's files."""

    date: str = "DATE"
    open: str = "OPEN"
    high: str = "HIGH"
    low: str = "LOW"
    close: str = "CLOSE"


def feature_names() -> list[str]:
    """Names of the columns that `features` returns, in order."""
    names = ["log_close", *(f"log_close_over_mean_{days}d" for days in MEANS)]
    names += [f"log_change_{days}d" for days in CHANGES] + [f"std_of_change_{days}d" for days in SPREADS]
    return [*names, "log_range", "log_range_mean_5d", "log_close_over_open", "place_in_range"]


def features(table: pd.DataFrame) -> np.ndarray:
    """Features ``[N, 17]`` of each day, from that day and earlier ones; NaN in the first `HISTORY` - 1 rows.

    Levels over means of several lengths are the predictors of the heterogeneous autoregressive model (Corsi, "A Simple
    Approximate Long-Memory Model of Realized Volatility", 2009).

    Args:
        table: columns ``open``, ``high``, ``low``, ``close``, a row a day, in order.
    """
    level = np.log(table["close"])
    spread = np.log(table["high"]) - np.log(table["low"])
    width = (table["high"] - table["low"]).where(table["high"] > table["low"])
    columns = [level, *(level - level.rolling(days).mean() for days in MEANS)]
    columns += [level.diff(days) for days in CHANGES] + [level.diff().rolling(days).std() for days in SPREADS]
    columns += [spread, spread.rolling(5).mean(), level - np.log(table["open"])]
    columns += [((table["close"] - table["low"]) / width).fillna(0.5)]
    values = np.column_stack(columns)
    values[: HISTORY - 1] = np.nan
    return values


def read(path: Path, columns: DailyColumns) -> pd.DataFrame:
    """Days of a file: ``date``, ``open``, ``high``, ``low``, ``close``.

    Raises:
        DataError: the file cannot be read; a date repeats or goes back; a value is not positive, or outside its range.
    """
    raw, where, first = tables.read_table(path), str(path), tables.first_row(path)
    tables.require_columns(raw, list(asdict(columns).values()), where)
    given = raw[columns.date]
    if pd.api.types.is_string_dtype(given) and given.astype(str).str.contains("/").any():
        given = pd.to_datetime(given, format="%m/%d/%Y", errors="coerce").rename(columns.date)
    place = {"where": where, "first": first}
    dates = times(given, **place)
    back = np.concatenate([[False], np.diff(dates.to_numpy()) <= np.timedelta64(0)])
    tables.refuse(back, raw[columns.date], "later than the row before", fix="sort by date, one row a day", **place)
    table = pd.DataFrame({"date": dates})
    for name in ("open", "high", "low", "close"):
        column = raw[getattr(columns, name)]
        table[name] = tables.numbers(column, **place)
        tables.refuse(
            (table[name] <= 0).to_numpy(), column, "positive", fix="an index of volatility is above 0", **place
        )
    crossed = (table["low"] > table["high"]).to_numpy()
    tables.refuse(crossed, raw[columns.low], "at most the high of its day", fix="correct the row", **place)
    return table


def volatility(
    context: DataContext,
    *,
    path: str | None = None,
    date: str = "DATE",
    open: str = "OPEN",
    high: str = "HIGH",
    low: str = "LOW",
    close: str = "CLOSE",
    horizon: int = 5,
    val_start: Date = Date(2012, 1, 1),
    test_start: Date = Date(2017, 1, 1),
) -> Splits:
    """The log change of a daily index over the next days, from its past: CBOE's VIX, or a file of your own.

    Rows are split by time. The last ``horizon`` days before a split are left out, because their targets lie in it. A
    fold for out-of-fold soft targets is made of whole years.

    Args:
        context: where the official file is (``finance/vix``), and the folder that ``path`` is relative to.
        path: your own ``.csv`` or ``.parquet`` file; by default the official one.
        date: column with the date.
        open: column with the first value of the day.
        high: column with the highest value of the day.
        low: column with the lowest value of the day.
        close: column with the last value of the day; name it for open, high and low too when it is all there is.
        horizon: trading days ahead.
        val_start: first day of validation; all earlier days train.
        test_start: first day of the test.

    Raises:
        DataError: the file cannot be used, or a split is empty.
    """
    if horizon < 1 or val_start >= test_start:
        raise DataError(
            f"horizon {horizon}, val_start {val_start} and test_start {test_start} give no splits",
            where="dataset options",
            fix="a horizon of at least one day, and validation before the test",
        )
    columns = DailyColumns(date=date, open=open, high=high, low=low, close=close)
    source = context.base / Path(path) if path is not None else _official(context.root.parent / "vix")
    table = read(source, columns)
    values, level = features(table), np.log(table["close"].to_numpy())
    change = np.full(len(table), np.nan)
    change[:-horizon] = level[horizon:] - level[:-horizon]
    day = table["date"].to_numpy().astype("datetime64[D]")
    usable = np.isfinite(values).all(axis=1) & np.isfinite(change)
    edges = [
        np.datetime64("0001-01-01"),
        np.datetime64(val_start),
        np.datetime64(test_start),
        np.datetime64("9999-01-01"),
    ]
    ahead = np.concatenate([day[horizon:], np.full(min(horizon, len(day)), edges[-1])])[: len(day)]
    positions = {}
    for number, name in enumerate(("train", "val", "test")):
        last = edges[number + 1]
        positions[name] = np.flatnonzero(
            usable & (day >= edges[number]) & (day < last) & ((ahead < last) | (name == "test"))
        )
        if not len(positions[name]):
            raise DataError(
                f"split '{name}' is empty: the file has {len(table)} days from {day[0]} to {day[-1]}, of which the "
                f"first {HISTORY - 1} only serve the features",
                where=str(source),
                fix="choose val_start and test_start inside them",
            )
    train = positions["train"]
    scaler = Scaler.fit(feature_names(), values[train])
    x, year = scaler(values), day.astype("datetime64[Y]").astype(int) + 1970

    def rows(name: str) -> TensorSplit:
        at = positions[name]
        return TensorSplit(
            {
                "x": torch.from_numpy(x[at]),
                "target": torch.from_numpy(change[at].astype(np.float32)),
                "close": torch.from_numpy(table["close"].to_numpy()[at].astype(np.float32)),
                "index": torch.from_numpy(at),
            },
            groups=[f"{name} {each}" for each in year[at]],
            times=day[at].astype(np.int64).astype(float).tolist(),
            until=ahead[at].astype(np.int64).astype(float).tolist(),
        )

    info = DataInfo(
        inputs={"x": TensorSpec((x.shape[1],))},
        target_mean=float(change[train].mean()),
        target_std=float(change[train].std()) or 1.0,
        unit="points",
        description=f"{source.name}: log change over {horizon} trading days, from {day[train[0]]} to {day[-1]}",
        meta={
            **scaler.meta(),
            "horizon": horizon,
            "target_percentiles": np.percentile(change[train], range(101)).tolist(),
        },
    )
    return Splits(
        info=info,
        train=rows("train"),
        val=rows("val"),
        test=rows("test"),
        reader=DailyReader(columns=columns, scaler=scaler),
    )


def _official(folder: Path) -> Path:
    found = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if len(found) != 1:
        raise DataError(
            f"the folder has {len(found)} .csv files" if folder.is_dir() else "the folder does not exist",
            where=str(folder),
            fix=f"put the one file VIX_History.csv there, from {HOMEPAGE}, or set dataset.path to a file of your own",
        )
    return found[0]


class DailyReader:
    """Days of a new file, each with the features of its past; a `stillhouse.types.Reader`.

    Args:
        columns: names of the file's columns.
        scaler: fitted on training rows.
    """

    def __init__(self, *, columns: DailyColumns, scaler: Scaler) -> None:
        self.columns, self.scaler = columns, scaler

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"columns": asdict(self.columns), "scaler": self.scaler.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(columns=DailyColumns(**state["columns"]), scaler=Scaler.from_state(state["scaler"]))

    def read(self, path: Path) -> tuple[TensorSplit, dict[str, list[Any]]]:
        """The days that have enough past, each with its ``date`` and ``close``.

        Raises:
            DataError: the file cannot be read, has a bad value, or is too short.
        """
        path = Path(path)
        table = read(path, self.columns)
        if len(table) < HISTORY:
            raise DataError(
                f"the file has {len(table)} days, and the features of one reach back {HISTORY}",
                where=str(path),
                fix="bring the past too",
            )
        at = np.arange(HISTORY - 1, len(table))
        split = TensorSplit({"x": torch.from_numpy(self.scaler(features(table)[at])), "index": torch.from_numpy(at)})
        kept = table.iloc[at]
        return split, {"date": kept["date"].dt.strftime("%Y-%m-%d").tolist(), "close": kept["close"].tolist()}
