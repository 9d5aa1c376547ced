"""Card transactions: from a table to the splits of the Fraud Detection Handbook's protocol; the user's own table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit
from stillhouse_finance.datasets.columns import flags, times
from stillhouse_finance.datasets.rolling import feature_names, features, seconds, yes_no
from stillhouse_finance.datasets.scaling import Scaler

CLASSES = ("genuine", "fraud")


@dataclass(frozen=True, kw_only=True)
class ColumnNames:
    """Names of the columns of a table of transactions; the defaults are those of the Fraud Detection Handbook."""

    time: str = "TX_DATETIME"
    card: str = "CUSTOMER_ID"
    terminal: str = "TERMINAL_ID"
    amount: str = "TX_AMOUNT"
    fraud: str = "TX_FRAUD"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Days of the splits, in order: validation, training, label delay, test.

    Args:
        start: first day of training; by default as late as the table allows.
        train_days: days of training.
        delay_days: days until the label of a transaction is known.
        test_days: days of the test.
        val_days: days of validation, right before training.
        windows: days of the rolling features.
        drop_known_cards: cards whose fraud is already known are blocked, and so left out of validation and test.
        terminals: rows have the entry ``terminal``, a number of its own for each, for clients that are groups of these.
    """

    start: date | None = None
    train_days: int = 7
    delay_days: int = 7
    test_days: int = 7
    val_days: int = 7
    windows: tuple[int, ...] = (1, 7, 30)
    drop_known_cards: bool = True
    terminals: bool = False

    def __post_init__(self) -> None:
        for name in ("train_days", "test_days", "val_days"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}", where="dataset options", fix="at least one day")
        if self.delay_days < 0:
            raise DataError(f"delay_days is {self.delay_days}", where="dataset options", fix="0 or more days")
        if not self.windows or min(self.windows) < 1 or max(self.windows) > 366:
            raise DataError(f"windows is {list(self.windows)}", where="dataset options", fix="1 to 366 days each")


def transactions(
    context: DataContext,
    *,
    path: str,
    time: str = "time",
    card: str = "card",
    terminal: str = "terminal",
    amount: str = "amount",
    fraud: str = "fraud",
    start: date | None = None,
    train_days: int = 7,
    delay_days: int = 7,
    test_days: int = 7,
    val_days: int = 7,
    windows: tuple[int, ...] = (1, 7, 30),
    drop_known_cards: bool = True,
) -> Splits:
    """Your own card transactions, with the features and the protocol of `finance/fraud-handbook`.

    Args:
        context: the folder that ``path`` is relative to.
        path: the ``.csv`` or ``.parquet`` file, or a folder of them.
        time: column with date and time.
        card: column with the id of the card or customer.
        terminal: column with the id of the terminal or merchant.
        amount: column with the amount.
        fraud: column with the label, 1 for fraud.
        start: first day of training, as in 2018-07-25; by default as late as the table allows.
        train_days: days of training.
        delay_days: days until the label of a transaction is known; these rows serve soft losses, unlabelled.
        test_days: days of the test.
        val_days: days of validation, right before training.
        windows: days of the rolling features.
        drop_known_cards: leave cards whose fraud is already known out of validation and test.

    Raises:
        DataError: the files cannot be used, or the days leave a split empty.
    """
    columns = ColumnNames(time=time, card=card, terminal=terminal, amount=amount, fraud=fraud)
    protocol = Protocol(
        start=start,
        train_days=train_days,
        delay_days=delay_days,
        test_days=test_days,
        val_days=val_days,
        windows=windows,
        drop_known_cards=drop_known_cards,
    )
    source = context.base / Path(path)
    return split(read(source, columns), protocol, columns, where=str(source), description=f"Transactions of {path}")


def read(source: Path, columns: ColumnNames) -> pd.DataFrame:
    """Transactions of a file or of all files of a folder, in order of time: ``time``, ``card``, ``terminal``,
    ``amount``, ``fraud``.

    Raises:
        DataError: a file is missing, corrupt, lacks a column, or has a bad value.
    """
    files = (
        sorted(path for path in source.iterdir() if path.suffix.lower() in tables.SUFFIXES)
        if source.is_dir()
        else [source]
    )
    if not files:
        raise DataError("the folder has no .parquet or .csv file", where=str(source), fix="put the transactions there")
    parts = [
        standard(tables.read_table(path), columns, where=str(path), first=tables.first_row(path)) for path in files
    ]
    return pd.concat(parts, ignore_index=True).sort_values("time", kind="stable", ignore_index=True)


def standard(raw: pd.DataFrame, columns: ColumnNames, *, where: str, first: int, unknown: bool = False) -> pd.DataFrame:
    """The table under our own column names, checked; ``unknown`` labels may be empty and count as no fraud.

    Raises:
        DataError: a column is missing, or a value bad; with its row.
    """
    tables.require_columns(raw, list(asdict(columns).values()), where)
    place = {"where": where, "first": first}
    return pd.DataFrame(
        {
            "time": times(raw[columns.time], **place),
            "card": tables.ids(raw[columns.card], **place),
            "terminal": tables.ids(raw[columns.terminal], **place),
            "amount": tables.numbers(raw[columns.amount], **place),
            "fraud": flags(raw[columns.fraud], gaps=unknown, **place),
        }
    )


def split(
    table: pd.DataFrame,
    protocol: Protocol,
    columns: ColumnNames,
    *,
    where: str,
    description: str,
    simulated: bool = False,
) -> Splits:
    """Splits of the protocol from transactions in order of time.

    The rows of the delay between training and test, whose labels nobody would know yet, are ``unlabelled``.
    Validation is what the protocol would have tested on right before training.

    Raises:
        DataError: the table does not cover the protocol's days, or a split is empty or without fraud.
    """
    dates = table["time"].dt.normalize()
    day = (dates - dates.iloc[0]).dt.days.to_numpy()
    train0 = _first_training_day(dates, day, protocol)
    test0 = train0 + protocol.train_days + protocol.delay_days
    val0 = train0 - protocol.val_days
    _refuse_gaps(day, dates.iloc[0], val0, test0 + protocol.test_days, where)
    _warn_of_past_and_repeats(table, protocol, val0)
    fraud, card = table["fraud"].to_numpy(), pd.factorize(table["card"])[0]
    values = features(table, windows=protocol.windows, delay=protocol.delay_days)

    def within(first: int, days: int) -> np.ndarray:
        return (day >= first) & (day < first + days)

    def judged(first: int, days: int) -> np.ndarray:
        lookback = protocol.delay_days + protocol.train_days
        known = known_cards(day, card, fraud, since=first - lookback, delay=protocol.delay_days)
        return within(first, days) & ~(known if protocol.drop_known_cards else np.zeros(len(day), dtype=bool))

    masks = {
        "train": within(train0, protocol.train_days),
        "val": judged(val0, protocol.val_days),
        "test": judged(test0, protocol.test_days),
        "unlabelled": within(train0 + protocol.train_days, protocol.delay_days),
    }
    _refuse_one_kind(fraud, masks, columns, where, simulated=simulated)
    scaler = Scaler.fit(feature_names(protocol.windows), values[masks["train"]])
    entries = {
        "x": torch.from_numpy(scaler(values)),
        "index": torch.arange(len(table)),
        "day": torch.from_numpy(day.astype(np.int64)),
        "card": torch.from_numpy(card.astype(np.int64)),
        "target": torch.from_numpy(fraud.astype(np.float32)),
    }
    if protocol.terminals:
        entries["terminal"] = torch.from_numpy(pd.factorize(table["terminal"])[0].astype(np.int64))
    stamps = seconds(table["time"]).astype(float)

    def rows(name: str) -> TensorSplit:
        at = np.flatnonzero(masks[name])
        chosen = torch.from_numpy(at)
        kept = {key: column[chosen] for key, column in entries.items() if name != "unlabelled" or key != "target"}
        return TensorSplit(kept, times=stamps[at].tolist())

    frauds = int(fraud[masks["train"]].sum())
    info = DataInfo(
        inputs={"x": TensorSpec((values.shape[1],))},
        classes=CLASSES,
        class_counts=(int(masks["train"].sum()) - frauds, frauds),
        description=description,
        simulated=simulated,
        meta={**scaler.meta(), "feature_yes_no": yes_no(protocol.windows), "by_card": True},
    )
    return Splits(
        info=info,
        train=rows("train"),
        val=rows("val"),
        test=rows("test"),
        unlabelled=rows("unlabelled") if masks["unlabelled"].any() else None,
        reader=TransactionReader(columns=columns, scaler=scaler, windows=protocol.windows, delay=protocol.delay_days),
    )


def _warn_of_past_and_repeats(table: pd.DataFrame, protocol: Protocol, past: int) -> None:
    """Say where features look back further than the ``past`` days before validation, and which rows repeat others."""
    needed = max(protocol.windows) + protocol.delay_days
    if past < needed:
        warnings.warn(
            f"validation begins {past} day(s) after the first transaction, and its features look back {needed} days "
            f"(window {max(protocol.windows)} and delay {protocol.delay_days}): the first rows are counted from less "
            "past than later ones; bring more days, or set smaller windows",
            stacklevel=3,
        )
    repeated = int(table[["time", "card", "terminal", "amount"]].duplicated().sum())
    if repeated:
        warnings.warn(
            f"{repeated} transaction(s) repeat another's time, card, terminal and amount, and are counted twice; "
            "remove them if a file was read twice",
            stacklevel=3,
        )


def _refuse_one_kind(
    fraud: np.ndarray, masks: Mapping[str, np.ndarray], columns: ColumnNames, where: str, *, simulated: bool
) -> None:
    """Frauds and other transactions must be in all splits."""
    if not fraud.any() and not simulated:
        raise DataError(
            f"no transaction is a fraud: column '{columns.fraud}' has no 1", where=where, fix="bring labelled frauds"
        )
    for name in ("train", "val", "test"):
        many, frauds = int(masks[name].sum()), int(fraud[masks[name]].sum())
        if not 0 < frauds < many:
            raise DataError(
                f"split '{name}' has {many} transactions, {frauds} of them fraud",
                where=where,
                fix="choose days (start, train_days, ...) in which both kinds occur",
            )


def known_cards(day: np.ndarray, card: np.ndarray, fraud: np.ndarray, *, since: int, delay: int) -> np.ndarray:
    """Rows ``[N]`` of cards whose fraud is known on the row's day.

    A fraud of day ``d`` is known from day ``d + delay + 1`` on, as in the handbook's ``get_train_test_set``; frauds
    before day ``since`` count no more, because those cards have been replaced.
    """
    counted = (fraud == 1) & (day >= since)
    first = np.full(int(card.max()) + 1, np.iinfo(np.int64).max // 2)
    np.minimum.at(first, card[counted], day[counted])
    known: np.ndarray = first[card] + delay + 1 <= day
    return known


def _first_training_day(dates: pd.Series, day: np.ndarray, protocol: Protocol) -> int:
    if protocol.start is None:
        return int(day[-1]) + 1 - protocol.train_days - protocol.delay_days - protocol.test_days
    return (pd.Timestamp(protocol.start) - dates.iloc[0]).days


def _refuse_gaps(day: np.ndarray, origin: pd.Timestamp, first: int, end: int, where: str) -> None:
    """Every day of the protocol must have transactions; a day without is a file that is not there."""
    missing = sorted(set(range(first, end)) - set(np.unique(day).tolist()))
    if missing:
        dates = [str((origin + pd.Timedelta(days=each)).date()) for each in missing]
        shown = ", ".join(dates[:3]) + (f" and {len(dates) - 3} more days" if len(dates) > 3 else "")
        raise DataError(
            f"there are no transactions on {shown}, which the protocol needs",
            where=where,
            fix="bring the missing days, or choose other days with start, train_days, delay_days, test_days, val_days",
        )


class TransactionReader:
    """Transactions of a new file, each with the features of its past; a `stillhouse.types.Reader`.

    The file must hold the past too: what it lacks of the last ``delay + max(windows)`` days is missing in the
    counts, and a warning says so. Labels may be empty, or their column absent.

    Args:
        columns: names of the file's columns.
        scaler: fitted on training rows.
        windows: days of the rolling features.
        delay: days until a label is known.
    """

    def __init__(self, *, columns: ColumnNames, scaler: Scaler, windows: Sequence[int], delay: int) -> None:
        self.columns, self.scaler, self.windows, self.delay = columns, scaler, tuple(windows), delay

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {
            "columns": asdict(self.columns),
            "scaler": self.scaler.state(),
            "windows": list(self.windows),
            "delay": self.delay,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(
            columns=ColumnNames(**state["columns"]),
            scaler=Scaler.from_state(state["scaler"]),
            windows=state["windows"],
            delay=state["delay"],
        )

    def read(self, path: Path) -> tuple[TensorSplit, dict[str, list[Any]]]:
        """All transactions in order of time, each with its ``row`` in the file, ``time``, ``card`` and ``amount``.

        Raises:
            DataError: the file cannot be read, lacks a column, or has a bad value.
        """
        path = Path(path)
        first = tables.first_row(path)
        raw = tables.read_table(path)
        if self.columns.fraud not in raw.columns:  # nobody knows the label of a new transaction
            raw = raw.assign(**{self.columns.fraud: np.nan})
        table = standard(raw, self.columns, where=str(path), first=first, unknown=True)
        table = table.sort_values("time", kind="stable")
        needed = max(self.windows) + self.delay
        day = (table["time"].dt.normalize() - table["time"].iloc[0].normalize()).dt.days
        short = int((day < needed).sum())
        if short:
            warnings.warn(
                f"{short} of {len(table)} rows have less than the {needed} days of past in the file that their "
                f"features count (window {max(self.windows)} and delay {self.delay}): their predictions are not "
                "reliable; put the transactions of the days before into the file",
                stacklevel=2,
            )
        values = features(table, windows=self.windows, delay=self.delay)
        split = TensorSplit({"x": torch.from_numpy(self.scaler(values)), "index": torch.tensor(table.index)})
        return split, {
            "row": (table.index + first).tolist(),
            "time": table["time"].astype(str).tolist(),
            "card": table["card"].tolist(),
            "amount": table["amount"].tolist(),
        }
