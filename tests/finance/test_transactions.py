"""Transactions: the handbook's protocol, the user's own table, the simulator, and what is refused."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
import torch

from stillhouse.errors import DataError
from stillhouse.pipeline.data import check_splits
from stillhouse.types import DataContext
from stillhouse_finance.datasets.fraud_handbook import fraud_handbook
from stillhouse_finance.datasets.rolling import features
from stillhouse_finance.datasets.simulator import simulate, transactions_sim
from stillhouse_finance.datasets.transactions import TransactionReader, transactions

DAYS = {"train_days": 5, "delay_days": 3, "test_days": 4, "val_days": 4}
START = {**DAYS, "start": date(2018, 6, 15)}


@pytest.fixture
def official(context, make):
    """A tiny handbook folder: 30 days of 40 transactions."""
    make.write_handbook(context.root, make.transactions())
    return context


def book_split(table: pd.DataFrame, start: int, train: int, delay: int, test: int) -> tuple[set[int], set[int]]:
    """Rows of training and test by the handbook's ``get_train_test_set``, written anew: day by day, the cards whose
    fraud became known meanwhile are left out of the test."""
    day = (table["time"].dt.normalize() - table["time"].iloc[0].normalize()).dt.days
    training = table[(day >= start) & (day < start + train)]
    known = set(training[training["fraud"] == 1]["card"])
    chosen = []
    for each in range(test):
        newly = table[(day == start + train + each - 1) & (table["fraud"] == 1)]
        known |= set(newly["card"])
        today = table[day == start + train + delay + each]
        chosen += today[~today["card"].isin(known)].index.tolist()
    return set(training.index), set(chosen)


def few_frauds(make, seed: int = 0) -> pd.DataFrame:
    """Transactions of more cards and fewer frauds, so that some cards stay unknown."""
    table = make.transactions(per_day=200, seed=seed)
    random = np.random.default_rng(seed)
    return table.assign(card=random.integers(0, 300, len(table)), fraud=(random.random(len(table)) < 0.02).astype(int))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_splits_are_those_of_the_handbook(context, make, seed):
    table = few_frauds(make, seed)
    make.write_handbook(context.root, table)
    splits = fraud_handbook(context, **START)
    train, test = book_split(table, 14, 5, 3, 4)
    assert set(splits.train.index().tolist()) == train
    assert set(splits.test.index().tolist()) == test
    day = (table["time"].dt.normalize() - table["time"].iloc[0].normalize()).dt.days
    assert 0 < len(test) < int(((day >= 22) & (day < 26)).sum())
    assert set(splits.unlabelled.index().tolist()) == set(table.index[(day >= 19) & (day < 22)])
    everyone = fraud_handbook(context, **START, drop_known_cards=False)
    assert len(everyone.test) == int(((day >= 22) & (day < 26)).sum())


def test_rows_know_their_terminal_where_that_is_asked_for(context, make):
    table = few_frauds(make)
    make.write_handbook(context.root, table)
    splits = fraud_handbook(context, **START, terminals=True)
    assert "terminal" not in fraud_handbook(context, **START).train.row(0)
    for rows in (splits.train, splits.test, splits.unlabelled):
        entries = rows.columns(["index", "terminal"])
        named = table["terminal"].loc[entries["index"].tolist()]
        pairs = set(zip(named, entries["terminal"].tolist(), strict=True))
        assert len(pairs) == len({name for name, _ in pairs}) == len({number for _, number in pairs}) > 1


def test_rows_are_scaled_features_with_labels_cards_and_days(context, make):
    table = few_frauds(make)
    make.write_handbook(context.root, table)
    splits = fraud_handbook(context, **START)
    check_splits(splits, name="handbook")
    raw = features(table, delay=3)
    train = splits.train.columns()
    at = train["index"].numpy()
    expected = (raw - raw[at].mean(axis=0)) / np.where(raw[at].std(axis=0) > 0, raw[at].std(axis=0), 1)
    for split in splits.named().values():
        rows = split.columns()
        np.testing.assert_allclose(rows["x"].numpy(), expected[rows["index"].numpy()], atol=1e-4)
        assert torch.equal(rows["target"], torch.tensor(table["fraud"].to_numpy()[rows["index"]]).float())
        assert (
            rows["day"].numpy().tolist()
            == (table["time"].iloc[rows["index"]] - table["time"][0].normalize()).dt.days.tolist()
        )
    assert splits.unlabelled is not None
    assert "target" not in splits.unlabelled.columns()
    frauds = int(train["target"].sum())
    assert splits.info.class_counts == (len(splits.train) - frauds, frauds)
    assert splits.info.simulated
    assert max(splits.train.times) < min(splits.test.times)


def test_csv_files_and_parquet_files_give_the_same_rows(tmp_path, make):
    table = make.transactions()
    found = []
    for suffix in (".parquet", ".csv"):
        folder = tmp_path / suffix[1:]
        make.write_handbook(folder, table, suffix)
        found.append(fraud_handbook(DataContext(root=folder, base=tmp_path), **START, drop_known_cards=False))
    for name, split in found[0].named().items():
        assert split.fingerprint() == found[1].named()[name].fingerprint()


def test_rows_do_not_depend_on_what_comes_after_the_test(context, make):
    table = few_frauds(make)
    make.write_handbook(context.root, table)
    before = fraud_handbook(context, **START)
    later = (table["time"] >= pd.Timestamp("2018-06-27")).to_numpy()
    changed = table.assign(fraud=np.where(later, 1, table["fraud"]), amount=np.where(later, 9999.0, table["amount"]))
    make.write_handbook(context.root, changed)
    after = fraud_handbook(context, **START)
    for name, split in before.named().items():
        rows, others = split.columns(), after.named()[name].columns()
        np.testing.assert_allclose(rows.pop("x"), others.pop("x"), atol=1e-5)
        assert all(torch.equal(entry, others[key]) for key, entry in rows.items())


def test_labels_of_the_delay_reach_neither_training_nor_validation_rows(context, make):
    table = few_frauds(make)
    make.write_handbook(context.root, table)
    before = fraud_handbook(context, **START)
    late = ((table["time"] >= pd.Timestamp("2018-06-20")) & (table["time"] < pd.Timestamp("2018-06-23"))).to_numpy()
    make.write_handbook(context.root, table.assign(fraud=np.where(late, 1 - table["fraud"], table["fraud"])))
    after = fraud_handbook(context, **START)
    for name in ("train", "val"):
        assert before.named()[name].fingerprint() == after.named()[name].fingerprint()
    assert before.unlabelled.fingerprint() == after.unlabelled.fingerprint()


def test_missing_files_are_told_with_where_they_come_from(context):
    with pytest.raises(DataError, match="no \\.parquet or \\.csv") as told:
        fraud_handbook(context)
    assert "Fraud-Detection-Handbook" in told.value.fix
    assert str(context.root) == told.value.where
    context.root.mkdir(parents=True)
    (context.root / "2018-06-01.pkl").write_bytes(b"never loaded")
    with pytest.raises(DataError, match="run code when they are loaded"):
        fraud_handbook(context)


def test_a_missing_day_is_named(official):
    (official.root / "2018-06-17.parquet").unlink()
    with pytest.raises(DataError, match="no transactions on 2018-06-17"):
        fraud_handbook(official, **START)
    with pytest.raises(DataError, match="2018-07-01, 2018-07-02"):
        fraud_handbook(official, **{**START, "start": date(2018, 6, 25)})


def test_a_truncated_file_is_named(official):
    path = official.root / "2018-06-17.parquet"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be parsed") as told:
        fraud_handbook(official, **START)
    assert told.value.where == str(path)


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("TX_FRAUD", 2, "row 6, column 'TX_FRAUD': .*2.* is not 0 or 1"),
        ("TX_AMOUNT", np.nan, "row 6, column 'TX_AMOUNT': an empty cell is not a finite number"),
        ("TX_AMOUNT", np.inf, "row 6, column 'TX_AMOUNT'.*finite number"),
        ("TX_DATETIME", pd.NaT, "row 6, column 'TX_DATETIME'.*not a date"),
        ("CUSTOMER_ID", None, "row 6, column 'CUSTOMER_ID'.*not an id"),
    ],
)
def test_a_bad_cell_is_named_with_its_row(official, column, value, what):
    path = official.root / "2018-06-17.parquet"
    table = pd.read_parquet(path)
    cells = table[column].tolist()
    table[column] = [value if row == 5 else cell for row, cell in enumerate(cells)]
    table.to_parquet(path)
    with pytest.raises(DataError, match=what) as told:
        fraud_handbook(official, **START)
    assert told.value.where == str(path)


def test_a_missing_column_is_named_with_the_nearest(official):
    path = official.root / "2018-06-17.parquet"
    pd.read_parquet(path).rename(columns={"TX_AMOUNT": "TX_AMOUNTS"}).to_parquet(path)
    with pytest.raises(DataError, match="no column 'TX_AMOUNT'") as told:
        fraud_handbook(official, **START)
    assert told.value.fix == "did you mean 'TX_AMOUNTS'?"


def test_days_without_fraud_are_refused(context, make):
    table = make.transactions()
    quiet = (table["time"] >= pd.Timestamp("2018-06-15")) & (table["time"] < pd.Timestamp("2018-06-20"))
    make.write_handbook(context.root, table.assign(fraud=np.where(quiet, 0, table["fraud"])))
    with pytest.raises(DataError, match="split 'train' has 200 transactions, 0 of them fraud"):
        fraud_handbook(context, **START)


@pytest.mark.parametrize("wrong", [{"train_days": 0}, {"delay_days": -1}, {"test_days": 0}])
def test_impossible_days_are_refused(official, wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        fraud_handbook(official, **{**START, **wrong})


OWN = {"path": "own.csv", "time": "when", "card": "pan", "terminal": "shop", "amount": "sum", "fraud": "bad"}


@pytest.fixture
def own(context, make):
    """The user's own CSV with other names, text ids and true/false labels; rows out of order."""
    table = make.transactions().rename(
        columns={mine: OWN[mine] for mine in ("time", "card", "terminal", "amount", "fraud")}
    )
    table = table.assign(pan="card-" + table["pan"].astype(str), bad=table["bad"] == 1)
    table.sample(frac=1, random_state=0).to_csv(context.base / "own.csv", index=False)
    return context


def test_an_own_table_gives_the_rows_of_the_handbook(own, make, tmp_path):
    make.write_handbook(tmp_path / "book", make.transactions())
    of_handbook = fraud_handbook(replace(own, root=tmp_path / "book"), **START, drop_known_cards=False)
    of_table = transactions(own, **OWN, **START, drop_known_cards=False)
    assert not of_table.info.simulated
    for name, split in of_handbook.named().items():
        for entry in ("x", "target", "day", "index"):
            assert torch.equal(split.columns()[entry], of_table.named()[name].columns()[entry]), (name, entry)


def test_without_a_start_the_last_days_are_the_test(own, make):
    splits = transactions(own, **OWN, **DAYS, drop_known_cards=False)
    assert int(splits.test.columns()["day"].max()) == 29
    assert int(splits.train.columns()["day"].min()) == 30 - 4 - 3 - 5
    short = transactions(own, **OWN, **DAYS, windows=(1,), drop_known_cards=False)
    assert short.info.inputs["x"].shape == (7,)
    with pytest.raises(DataError, match="windows"):
        transactions(own, **OWN, **DAYS, windows=(0,))


def test_a_reader_gives_new_files_the_features_of_training(own, tmp_path):
    splits = transactions(own, **OWN, **START)
    reader = TransactionReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, told = reader.read(tmp_path / "own.csv")
    test = splits.test.columns()
    raw = pd.read_csv(tmp_path / "own.csv")
    ordered = raw.sort_values("when", kind="stable")
    assert told["row"] == (ordered.index + 2).tolist()
    assert told["card"] == ordered["pan"].tolist()
    np.testing.assert_allclose(rows.columns()["x"][test["index"]], test["x"], atol=1e-6)
    unknown = raw.assign(bad=raw["bad"].astype(object).where(raw["when"] < "2018-06-28", None))
    unknown.to_csv(tmp_path / "new.csv", index=False)
    np.testing.assert_allclose(reader.read(tmp_path / "new.csv")[0].columns()["x"], rows.columns()["x"], atol=1e-6)


def test_new_files_need_no_label_and_are_told_when_their_past_is_missing(own, tmp_path):
    reader = transactions(own, **OWN, **DAYS, windows=(1, 7)).reader
    raw = pd.read_csv(tmp_path / "own.csv")
    raw.drop(columns="bad").to_csv(tmp_path / "new.csv", index=False)
    early = int((pd.to_datetime(raw["when"]) < "2018-06-11").sum())
    with pytest.warns(UserWarning, match=rf"{early} of {len(raw)} rows have less than the 10 days of past"):
        assert len(reader.read(tmp_path / "new.csv")[0]) == len(raw)


def test_a_short_past_and_repeated_rows_are_told_and_no_fraud_at_all_is_refused(own, tmp_path):
    raw = pd.read_csv(tmp_path / "own.csv")
    with pytest.warns(UserWarning, match=r"begins 14 day\(s\) after the first transaction.* look back 33 days"):
        transactions(own, **OWN, **DAYS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transactions(own, **OWN, **DAYS, windows=(1, 7))
    pd.concat([raw, raw.iloc[:3]]).to_csv(tmp_path / "own.csv", index=False)
    with pytest.warns(UserWarning, match=r"3 transaction\(s\) repeat another's time"):
        transactions(own, **OWN, **DAYS, windows=(1, 7))
    raw.assign(bad=0).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(DataError, match="no transaction is a fraud: column 'bad' has no 1"):
        transactions(own, **OWN, **DAYS, windows=(1, 7))


def test_a_file_that_is_not_there_or_of_another_type_is_refused(context):
    with pytest.raises(DataError, match="does not exist"):
        transactions(context, **OWN)
    with pytest.raises(DataError, match="cannot be read here"):
        transactions(context, **{**OWN, "path": "own.xlsx"})
    (context.base / "own.csv").write_text("when,pan,shop,sum,bad\n")
    with pytest.raises(DataError, match="no rows"):
        transactions(context, **OWN)


SMALL = {"customers": 150, "terminals": 100, "days": 60}
RATES = {"terminal_rate": 2e-3, "card_rate": 4e-3}


def test_simulated_rows_follow_the_seed_and_say_that_they_are_simulated(context):
    first, again = (transactions_sim(context, **SMALL, **RATES) for _ in range(2))
    other = transactions_sim(replace(context, seed=1), **SMALL, **RATES)
    check_splits(first, name="sim")
    assert first.info.simulated
    assert "not real" in first.info.description
    for name in ("train", "val", "test"):
        assert first.named()[name].fingerprint() == again.named()[name].fingerprint()
        assert first.named()[name].fingerprint() != other.named()[name].fingerprint()


def test_the_three_scenarios_are_what_they_say():
    table = simulate(**SMALL, radius=15.0, **RATES, seed=3)
    assert table["time"].is_monotonic_increasing
    assert set(table["scenario"]) == {0, 1, 2, 3}
    assert (table["fraud"] == (table["scenario"] > 0)).all()
    assert (table.loc[table["scenario"] == 1, "amount"] > 220).all()
    assert (table.loc[table["scenario"] == 0, "amount"] <= 220).all()
    day = (table["time"] - table["time"].min().normalize()).dt.days
    for _, rows in table[table["scenario"] == 2].groupby("terminal"):
        first = day[rows.index[0]]
        within = table[(table["terminal"] == rows["terminal"].iloc[0]) & (day >= first) & (day <= day[rows.index[-1]])]
        if day[rows.index[-1]] - first < 28:
            assert (within["fraud"] == 1).all()
    stolen = table[table["scenario"] == 3]
    usual = table[(table["scenario"] == 0) & table["card"].isin(stolen["card"])]
    assert stolen["amount"].mean() > 3 * usual["amount"].mean()
    none = simulate(**SMALL, radius=15.0, terminal_rate=0.0, card_rate=0.0, seed=3)
    assert set(none["scenario"]) == {0, 1}


def test_customers_pay_near_their_home():
    near = simulate(**SMALL, radius=0.0, terminal_rate=0.0, card_rate=0.0, seed=0)
    assert (near.groupby("card")["terminal"].nunique() == 1).all()
    far = simulate(**SMALL, radius=200.0, terminal_rate=0.0, card_rate=0.0, seed=0)
    assert far["terminal"].nunique() == 100


def test_impossible_simulations_are_refused(context):
    for wrong in ({"customers": 0}, {"days": 20}, {"card_rate": 2.0}):
        with pytest.raises(DataError, match="give no transactions"):
            transactions_sim(context, **{**SMALL, **RATES, **wrong})
    with pytest.raises(DataError, match="0 of them fraud"):
        transactions_sim(context, customers=5, terminals=5, days=40, terminal_rate=0.0, card_rate=0.0)


def test_the_protocol_of_the_handbook_has_its_published_counts(data_folder):
    root = data_folder / "finance" / "fraud-handbook"
    if not root.is_dir():
        pytest.skip("no files of the handbook")
    splits = fraud_handbook(DataContext(root=root, base=root))
    check_splits(splits, name="finance/fraud-handbook")
    counts = {
        name: (len(split), int(split.columns(["target"])["target"].sum())) for name, split in splits.named().items()
    }
    assert counts["train"] == (67_240, 598)
    assert counts["test"] == (58_264, 385)
    assert splits.info.inputs["x"].shape == (15,)
    assert len(splits.unlabelled) > 60_000
