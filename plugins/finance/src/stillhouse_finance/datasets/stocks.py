"""Daily prices of many stocks: which way one moves on the next day, and how much of it is traded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date as Date
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit
from stillhouse_finance.datasets.columns import times
from stillhouse_finance.datasets.scaling import Scaler

PAGE = "https://github.com/yumoxu/stocknet-dataset"
COLUMNS = ("Open", "High", "Low", "Close", "Adj Close", "Volume")
FALL, RISE = -0.005, 0.0055
"""Movements between the two are left out (StockNet): the share by which the adjusted close changes."""
MEAN_DAYS = 20
"""Trading days whose mean log volume a volume is measured against."""
Goal = Literal["movement", "volume"]


def stocks(
    context: DataContext,
    *,
    goal: Goal = "movement",
    path: str | None = None,
    window: int = 5,
    train_start: Date = Date(2014, 1, 1),
    val_start: Date = Date(2015, 8, 1),
    test_start: Date = Date(2015, 10, 1),
    test_end: Date = Date(2015, 12, 31),
) -> Splits:
    """A stock and a day, told from the trading days before it: StockNet's prices, or files of your own.

    A row is split by the date of the day that is predicted; the defaults are those of StockNet (Xu and Cohen, ACL
    2018). ``movement``: whether the adjusted close rises or falls; days between -0.5 % and 0.55 % are left out, as
    there. ``volume``: the logarithm of the shares traded, less its mean over the 20 trading days before.

    Features are those of the last ``window`` days before the predicted one: the logarithm of open, high and low over
    close, the log return of the adjusted close, the logarithm of the volume over its 20-day mean, and the mean return
    and volume of all stocks on that day. Nothing of the predicted day is among them.

    Args:
        context: where the official files are (``finance/stocknet-acl18/price/raw``), and the folder that ``path`` is
            relative to.
        goal: what is predicted.
        path: folder with a ``SYMBOL.csv`` for each stock of your own: Date, Open, High, Low, Close, Adj Close, Volume.
        window: trading days that a model sees.
        train_start: first predicted day of training.
        val_start: first predicted day of validation.
        test_start: first predicted day of the test.
        test_end: last predicted day of the test.

    Raises:
        DataError: files are missing or malformed, or a split is empty.
    """
    folder = context.base / path if path is not None else context.root.parent / "stocknet-acl18" / "price" / "raw"
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if not files:
        raise DataError(
            "there is no .csv file of a stock" if folder.is_dir() else "the folder does not exist",
            where=str(folder),
            fix=f"put price/raw of {PAGE} there, or set dataset.path to a folder of your own",
        )
    return build(
        {file.stem: read(file) for file in files},
        goal=goal,
        window=window,
        edges=(train_start, val_start, test_start, test_end),
        description=f"{len(files)} stocks of {folder.name}",
    )


def stocks_sim(context: DataContext, *, goal: Goal = "movement", symbols: int = 12, window: int = 5) -> Splits:
    """Simulated stocks, whose volume follows its past and the market's, and whose movements follow next to nothing.

    Args:
        context: gives the seed.
        goal: what is predicted.
        symbols: number of stocks.
        window: trading days that a model sees.

    Raises:
        DataError: the options leave no rows.
    """
    if symbols < 2:
        raise DataError(f"{symbols} stocks are too few", where="dataset.symbols", fix="two or more")
    return build(
        simulate(symbols, np.random.default_rng(context.seed)),
        goal=goal,
        window=window,
        edges=(Date(2014, 1, 1), Date(2015, 8, 1), Date(2015, 10, 1), Date(2015, 12, 31)),
        description=f"{symbols} simulated stocks",
        simulated=True,
    )


def simulate(symbols: int, random: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Days of stocks by symbol, in the columns of `read`."""
    days = pd.bdate_range("2013-10-01", "2016-01-05")
    market, mood = random.normal(0, 0.008, len(days)), np.zeros(len(days))
    for day in range(1, len(days)):
        mood[day] = 0.8 * mood[day - 1] + random.normal(0, 0.25)
    found = {}
    for number in range(symbols):
        change = 0.9 * market + 0.08 * np.concatenate([[0.0], market[:-1]]) + random.normal(0, 0.012, len(days))
        close = 50.0 * np.exp(np.cumsum(change))
        low, high = (np.exp(sign * np.abs(random.normal(0, 0.006, len(days)))) for sign in (-1, 1))
        noise = np.zeros(len(days))
        for day in range(1, len(days)):
            noise[day] = 0.5 * noise[day - 1] + random.normal(0, 0.2) + 6.0 * abs(change[day - 1])
        table = pd.DataFrame({"Date": days, "Open": close * np.exp(random.normal(0, 0.004, len(days)))})
        table["Close"] = table["Adj Close"] = close
        table["High"] = np.maximum(table["Open"], close) * high
        table["Low"] = np.minimum(table["Open"], close) * low
        table["Volume"] = np.exp(14.0 + 0.3 * number / symbols + 0.6 * mood + noise).round()
        found[f"SIM{number:02d}"] = table
    return found


def read(path: Path) -> pd.DataFrame:
    """Days of one stock: ``Date`` and `COLUMNS`, in order of time; days without any value are left out.

    Raises:
        DataError: the file cannot be read; a date repeats or goes back; a price is not positive.
    """
    raw, where, first = tables.read_table(path), str(path), tables.first_row(path)
    tables.require_columns(raw, ["Date", *COLUMNS], where)
    # The official files name three days of which nothing is known.
    raw = raw[raw[list(COLUMNS)].notna().any(axis=1)]
    dates = times(raw["Date"], where=where, first=first)
    back = np.concatenate([[False], np.diff(dates.to_numpy()) <= np.timedelta64(0)])
    fix = "sort by date, one row a day"
    tables.refuse(back, raw["Date"], "later than the row before", where=where, first=first, fix=fix)
    table = pd.DataFrame({"Date": dates})
    for name in COLUMNS:
        table[name] = tables.numbers(raw[name], where=where, first=first)
        least = 0 if name == "Volume" else np.nextafter(0, 1)
        what = "0 or more" if name == "Volume" else "positive"
        bad = (table[name] < least).to_numpy()
        tables.refuse(bad, raw[name], what, where=where, first=first, fix="correct the row, or leave it out")
    return table


def feature_names(window: int) -> list[str]:
    """Names of the features, the latest day first."""
    each = ("open_over_close", "high_over_close", "low_over_close", "return", "volume", "market_return")
    return [f"{name}_{day}d_ago" for day in range(1, window + 1) for name in (*each, "market_volume")]


def daily(table: pd.DataFrame) -> pd.DataFrame:
    """What is known of each day of one stock when it is over: features, ``change`` of the adjusted close, and
    ``volume`` over the mean of the 20 days before it (so that a day's own volume is not in its mean)."""
    close, volume = np.log(table["Close"]), np.log(table["Volume"].clip(lower=1))
    found = pd.DataFrame({"Date": table["Date"]})
    for name in ("Open", "High", "Low"):
        found[name] = np.log(table[name]) - close
    found["change"] = table["Adj Close"].pct_change()
    found["return"] = np.log1p(found["change"])
    found["volume"] = volume - volume.shift(1).rolling(MEAN_DAYS).mean()
    return found


def build(
    given: Mapping[str, pd.DataFrame],
    *,
    goal: Goal,
    window: int,
    edges: tuple[Date, Date, Date, Date],
    description: str,
    simulated: bool = False,
) -> Splits:
    """Splits of stocks and days; see `stocks`."""
    if window < 1 or not edges[0] < edges[1] < edges[2] <= edges[3]:
        raise DataError(
            f"window {window} and the days {', '.join(map(str, edges))} give no splits",
            where="dataset options",
            fix="a window of a day at least, training before validation before test",
        )
    known = pd.concat([daily(table).assign(symbol=symbol) for symbol, table in given.items()], ignore_index=True)
    for name in ("return", "volume"):
        known[f"market_{name}"] = known.groupby("Date")[name].transform("mean")
    seen = ["Open", "High", "Low", "return", "volume", "market_return", "market_volume"]
    by_symbol = known.groupby("symbol", sort=False)
    # Each feature as it was the day before the predicted one, the day before that, and so on.
    values = np.column_stack([by_symbol[name].shift(day).to_numpy() for day in range(1, window + 1) for name in seen])
    change = known["change"].to_numpy()
    target = np.where(change > RISE, 1.0, 0.0) if goal == "movement" else known["volume"].to_numpy()
    usable = np.isfinite(values).all(axis=1) & np.isfinite(target) & np.isfinite(change)
    if goal == "movement":
        usable &= (change <= FALL) | (change > RISE)
    day = known["Date"].to_numpy().astype("datetime64[D]")
    starts = [np.datetime64(each) for each in edges[:3]] + [np.datetime64(edges[3]) + 1]
    parts = {
        name: np.flatnonzero(usable & (day >= starts[at]) & (day < starts[at + 1]))
        for at, name in enumerate(("train", "val", "test"))
    }
    for name, at in parts.items():
        if not len(at):
            raise DataError(f"split '{name}' is empty", where=description, fix="choose other days, or bring more files")
    scaler = Scaler.fit(feature_names(window), values[parts["train"]])
    last = by_symbol["volume"].shift(1).to_numpy()
    kind = np.int64 if goal == "movement" else np.float32

    def rows(name: str) -> TensorSplit:
        at = parts[name]
        columns = {"x": scaler(values[at]).clip(-10, 10), "target": target[at].astype(kind), "index": at}
        if goal == "volume":
            columns["yesterday"] = last[at].astype(np.float32)
        return TensorSplit(
            {key: torch.from_numpy(value) for key, value in columns.items()},
            times=day[at].astype(np.int64).astype(float).tolist(),
        )

    train = target[parts["train"]]
    movement = goal == "movement"
    info = DataInfo(
        inputs={"x": TensorSpec((values.shape[1],))},
        classes=("fall", "rise") if movement else None,
        class_counts=(int((train == 0).sum()), int((train == 1).sum())) if movement else None,
        target_mean=0.0 if movement else float(train.mean()),
        target_std=1.0 if movement else float(train.std()),
        unit="" if movement else "log shares over the 20-day mean",
        description=f"{description}: {goal} of the next day, from {window} days; split by the day predicted",
        simulated=simulated,
        meta=scaler.meta(),
    )
    return Splits(info=info, train=rows("train"), val=rows("val"), test=rows("test"))
