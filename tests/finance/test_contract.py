"""The plugin keeps the contract, on the embedded data and on small files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import stillhouse.testing
from stillhouse_finance.datasets.forecast import CHANNELS
from stillhouse_finance.datasets.news import sample
from stillhouse_finance.datasets.stocks import simulate

DATA = Path(tempfile.gettempdir()) / f"stillhouse-finance-{os.getpid()}"
WEEK = {"train_days": 5, "delay_days": 3, "test_days": 5, "val_days": 5}


@pytest.fixture(scope="module", autouse=True)
def samples(make: SimpleNamespace) -> Iterator[None]:
    """Official files in miniature, and some of a user's own."""
    # Long enough for a stream whose labels come a week late, with cards that are not all known as compromised by then.
    make.write_handbook(DATA / "finance" / "fraud-handbook", make.transactions(days=50, per_day=20, cards=400))
    make.transactions().to_csv(DATA / "transactions.csv", index=False)
    make.loans().to_csv(DATA / "loans.csv", index=False)
    (DATA / "finance" / "vix").mkdir()
    dates = pd.bdate_range("2010-06-01", periods=2000).astype(str)
    make.days(many=2000).assign(DATE=dates).to_csv(DATA / "finance" / "vix" / "VIX_History.csv", index=False)
    prices = DATA / "finance" / "stocknet-acl18" / "price" / "raw"
    prices.mkdir(parents=True)
    for symbol, table in simulate(3, np.random.default_rng(0)).items():
        table.to_csv(prices / f"{symbol}.csv", index=False)
    (DATA / "finance" / "ett").mkdir()
    hours = pd.DataFrame(np.random.default_rng(0).normal(size=(14400, 7)).round(3), columns=CHANNELS)
    hours.insert(0, "date", pd.date_range("2016-07-01", periods=len(hours), freq="h"))
    hours.to_csv(DATA / "finance" / "ett" / "ETTh1.csv", index=False)
    (DATA / "finance" / "financial-phrasebank").mkdir()
    lines = [f"{text}@{label}" for text, label in zip(*sample(200, seed=1), strict=True)]
    (DATA / "finance" / "financial-phrasebank" / "Sentences_50Agree.txt").write_text("\n".join(lines), "latin-1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_DATA", str(DATA))
        yield
    shutil.rmtree(DATA)


test_contract = stillhouse.testing.contract(
    "finance",
    options={
        "finance/fraud-handbook": {"start": "2018-06-15", **WEEK, "train_days": 20},
        "finance/transactions": {"path": str(DATA / "transactions.csv"), **WEEK},
        "finance/tabular": {"path": str(DATA / "loans.csv"), "target": "defaulted", "ignore": ["id"], "time": "opened"},
        "dataset:finance/volatility": {},
        "finance/news": {"overlap": 1.0},
        "finance/stocks": {},
        "finance/ett": {"past": 24, "ahead": 4, "step": 200},
    },
)
