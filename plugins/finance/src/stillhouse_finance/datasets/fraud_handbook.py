"""Simulated card transactions of the Fraud Detection Handbook (Le Borgne, Siblini, Lebichot and Bontempi, 2022)."""

from __future__ import annotations

from datetime import date

from stillhouse.data.tables import SUFFIXES
from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_finance.datasets.transactions import ColumnNames, Protocol, read, split

HOMEPAGE = "https://github.com/Fraud-Detection-Handbook/simulated-data-raw"


def fraud_handbook(
    context: DataContext,
    *,
    start: date = date(2018, 7, 25),
    train_days: int = 7,
    delay_days: int = 7,
    test_days: int = 7,
    val_days: int = 7,
    windows: tuple[int, ...] = (1, 7, 30),
    drop_known_cards: bool = True,
    terminals: bool = False,
) -> Splits:
    """The handbook's transactions with its 15 features and its protocol: a week of training, a week until labels are
    known, a week of test.

    Training has all transactions of its week. Cards whose fraud is known by then are left out of the test. The rows
    of the delay are the ``unlabelled`` split. Validation is the week before training, judged by the same rule; to
    choose hyperparameters, move ``start`` back two weeks, which tests on what is the training week here.

    Args:
        context: where the files are: one Parquet or CSV file a day (``2018-07-25.parquet``).
        start: first day of training.
        train_days: days of training.
        delay_days: days until the label of a transaction is known.
        test_days: days of the test.
        val_days: days of validation, right before training.
        windows: days of the rolling features; the handbook's by default.
        drop_known_cards: leave cards whose fraud is already known out of validation and test.
        terminals: rows have the entry ``terminal``, for `core/federated` with clients that are groups of terminals.

    Raises:
        DataError: files are missing, corrupt, or do not cover the days.
    """
    root = context.root
    present = [path for path in root.iterdir() if path.suffix.lower() in SUFFIXES] if root.is_dir() else []
    if not present:
        pickles = any(root.glob("*.pkl")) if root.is_dir() else False
        raise DataError(
            "the folder has no .parquet or .csv file"
            + (" (it has pickles, which run code when they are loaded and are not read here)" if pickles else ""),
            where=str(root),
            fix="put one file a day there, e.g. 2018-07-25.parquet, at least 2018-06-20 to 2018-08-14; the handbook "
            f"publishes them as pickles at {HOMEPAGE}, which pandas.read_pickle(...).to_parquet(...) converts",
        )
    columns = ColumnNames()
    protocol = Protocol(
        start=start,
        train_days=train_days,
        delay_days=delay_days,
        test_days=test_days,
        val_days=val_days,
        windows=windows,
        drop_known_cards=drop_known_cards,
        terminals=terminals,
    )
    return split(
        read(root, columns),
        protocol,
        columns,
        where=str(root),
        description="Card transactions of the Fraud Detection Handbook's simulator, with features of card and terminal",
        simulated=True,
    )
