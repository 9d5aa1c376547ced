"""Tables of transactions, loans and days, made by the tests in the layouts that the datasets read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from stillhouse.types import DataContext

FIRST = pd.Timestamp("2018-06-01")
HANDBOOK = {
    "time": "TX_DATETIME",
    "card": "CUSTOMER_ID",
    "terminal": "TERMINAL_ID",
    "amount": "TX_AMOUNT",
    "fraud": "TX_FRAUD",
}


def transactions(days: int = 30, per_day: int = 40, seed: int = 0, cards: int = 20) -> pd.DataFrame:
    """Transactions in order of time; cards at 15 terminals, every eighth a fraud."""
    random = np.random.default_rng(seed)
    many = days * per_day
    second = np.sort(random.integers(0, 86_400, (days, per_day)), axis=1) + 86_400 * np.arange(days)[:, None]
    fraud = random.random(many) < 0.125
    return pd.DataFrame(
        {
            "time": FIRST + pd.to_timedelta(second.ravel(), unit="s"),
            "card": random.integers(0, cards, many),
            "terminal": random.integers(0, 15, many),
            "amount": (random.uniform(1, 100, many) * np.where(fraud, 3, 1)).round(2),
            "fraud": fraud.astype(np.int64),
        }
    )


def write_handbook(folder: Path, table: pd.DataFrame, suffix: str = ".parquet") -> None:
    """One file a day with the handbook's columns, as the official files are."""
    folder.mkdir(parents=True, exist_ok=True)
    official = table.rename(columns=HANDBOOK).assign(
        TRANSACTION_ID=range(len(table)),
        TX_TIME_DAYS=(table["time"] - FIRST).dt.days,
        TX_FRAUD_SCENARIO=table["fraud"],
    )
    for day, part in official.groupby(official["TX_DATETIME"].dt.date):
        write = part.to_parquet if suffix == ".parquet" else part.to_csv
        write(folder / f"{day}{suffix}", index=False)


def loans(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Loans whose default depends on income, purpose and age; with gaps, a date, a branch and an id."""
    random = np.random.default_rng(seed)
    income = random.lognormal(10, 0.5, rows).round(2)
    purpose = random.choice(["car", "house", "school"], rows, p=[0.5, 0.3, 0.2])
    age = random.integers(18, 80, rows)
    logit = -(np.log(income) - 10) * 3 + 2 * (purpose == "car") - 1
    return pd.DataFrame(
        {
            "id": [f"L{number}" for number in range(rows)],
            "opened": (FIRST + pd.to_timedelta(np.sort(random.integers(0, 400, rows)), unit="D")).astype(str),
            "branch": random.integers(0, 20, rows),
            "income": np.where(random.random(rows) < 0.1, np.nan, income),
            "age": age,
            "purpose": np.where(random.random(rows) < 0.05, None, purpose),
            "member": random.random(rows) < 0.5,
            "defaulted": (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64),
        }
    )


def days(many: int = 700, seed: int = 0) -> pd.DataFrame:
    """A daily index that returns to its mean, with CBOE's columns, on working days from 2015."""
    random = np.random.default_rng(seed)
    level = np.zeros(many)
    for day in range(1, many):
        level[day] = 0.9 * level[day - 1] + random.normal(0, 0.08)
    close = 18 * np.exp(level)
    opened = close * np.exp(random.normal(0, 0.02, many))
    table = pd.DataFrame({"DATE": pd.bdate_range("2015-01-01", periods=many).astype(str), "OPEN": opened})
    table["HIGH"] = np.maximum(opened, close) * 1.02
    table["LOW"] = np.minimum(opened, close) * 0.98
    table["CLOSE"] = close
    return table.round(4)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """``transactions``, ``write_handbook``, ``loans`` and ``days``."""
    return SimpleNamespace(transactions=transactions, write_handbook=write_handbook, loans=loans, days=days)


@pytest.fixture
def context(tmp_path: Path) -> DataContext:
    """Official files would be in ``official/<name>``; the user's own are in the temporary folder."""
    return DataContext(root=tmp_path / "official" / "dataset", base=tmp_path)
