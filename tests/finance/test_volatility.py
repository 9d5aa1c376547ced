"""The daily index: features without a look ahead, targets that stay inside their split, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from stillhouse.errors import DataError
from stillhouse.pipeline.data import check_splits
from stillhouse.types import DataContext
from stillhouse_finance.datasets.volatility import HISTORY, DailyReader, feature_names, features, volatility

OWN = {"path": "index.csv", "val_start": date(2016, 9, 1), "test_start": date(2017, 2, 1)}


@pytest.fixture
def table(context, make):
    made = make.days()
    made.to_csv(context.base / "index.csv", index=False)
    return made


def lower(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns=str.lower)


def test_features_are_those_of_the_formulas(table):
    found = features(lower(table))
    assert found.shape == (700, len(feature_names())) == (700, 17)
    assert np.isnan(found[: HISTORY - 1]).all()
    names = feature_names()
    for at in (HISTORY - 1, 400, 699):
        past = np.log(table["CLOSE"].to_numpy()[: at + 1])
        assert found[at, 0] == pytest.approx(past[-1])
        assert found[at, names.index("log_close_over_mean_22d")] == pytest.approx(past[-1] - past[-22:].mean())
        assert found[at, names.index("log_change_10d")] == pytest.approx(past[-1] - past[-11])
        assert found[at, names.index("std_of_change_5d")] == pytest.approx(np.diff(past[-6:]).std(ddof=1))
        row = table.iloc[at]
        assert found[at, names.index("log_range")] == pytest.approx(np.log(row["HIGH"] / row["LOW"]))
        place = (row["CLOSE"] - row["LOW"]) / (row["HIGH"] - row["LOW"])
        assert found[at, names.index("place_in_range")] == pytest.approx(place)


@pytest.mark.parametrize("now", [HISTORY, 300, 500])
def test_features_do_not_change_when_later_days_do(table, now):
    before = features(lower(table))
    changed = lower(table)
    changed.loc[now + 1 :, ["open", "high", "low", "close"]] *= 7
    np.testing.assert_allclose(features(changed)[: now + 1], before[: now + 1], atol=1e-9)
    np.testing.assert_allclose(features(lower(table)[: now + 1])[now], before[now], atol=1e-9)


def test_a_day_without_range_has_finite_features(table):
    flat = lower(table)
    for name in ("open", "high", "low"):
        flat[name] = flat["close"]
    assert np.isfinite(features(flat)[HISTORY - 1 :]).all()


@pytest.mark.parametrize("horizon", [1, 5, 20])
def test_targets_are_changes_ahead_that_stay_in_their_split(context, table, horizon):
    splits = volatility(context, **OWN, horizon=horizon)
    check_splits(splits, name="index")
    level, day = np.log(table["CLOSE"].to_numpy()), pd.to_datetime(table["DATE"])
    ends = {"train": pd.Timestamp(OWN["val_start"]), "val": pd.Timestamp(OWN["test_start"]), "test": pd.Timestamp.max}
    for name, split in splits.named().items():
        rows = split.columns()
        at = rows["index"].numpy()
        np.testing.assert_allclose(rows["target"].numpy(), level[at + horizon] - level[at], atol=1e-6)
        np.testing.assert_allclose(rows["close"].numpy(), table["CLOSE"].to_numpy()[at], rtol=1e-6)
        assert day[at + horizon].max() < ends[name]
    assert splits.train.index()[0] == HISTORY - 1
    assert splits.test.index()[-1] == 699 - horizon
    x = splits.train.columns()["x"].double()
    assert float(x.mean(0).abs().max()) < 1e-4
    assert np.allclose(x.std(0, correction=0), 1, atol=1e-3)


def test_the_official_file_is_found_with_either_form_of_dates(context, table):
    folder = context.root.parent / "vix"
    with pytest.raises(DataError, match="does not exist") as told:
        volatility(context)
    assert "cboe.com" in told.value.fix
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=r"has 0 \.csv files"):
        volatility(context)
    american = table.assign(DATE=pd.to_datetime(table["DATE"]).dt.strftime("%m/%d/%Y"))
    american.to_csv(folder / "VIX_History.csv", index=False)
    dates = {name: OWN[name] for name in ("val_start", "test_start")}
    official, own = volatility(context, **dates), volatility(context, **OWN)
    for name, split in official.named().items():
        assert split.fingerprint() == own.named()[name].fingerprint()


def test_an_index_with_closing_values_only(context, table):
    table[["DATE", "CLOSE"]].rename(columns={"DATE": "day", "CLOSE": "value"}).to_csv(
        context.base / "own.csv", index=False
    )
    names = dict.fromkeys(("open", "high", "low", "close"), "value")
    splits = volatility(context, **{**OWN, "path": "own.csv"}, date="day", **names)
    assert np.isfinite(splits.test.columns()["x"].numpy()).all()


def edit(table: pd.DataFrame, column: str, row: int, value: object) -> pd.DataFrame:
    cells = table[column].tolist()
    cells[row] = value
    return table.assign(**{column: cells})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: edit(t, "CLOSE", 4, "x"), "row 6, column 'CLOSE': 'x' is not a finite number"),
        (lambda t: edit(t, "CLOSE", 4, 0.0), "row 6, column 'CLOSE': '0.0' is not positive"),
        (lambda t: edit(t, "LOW", 4, 1000.0), "row 6, column 'LOW': '1000.0' is not at most the high"),
        (lambda t: edit(t, "DATE", 4, t["DATE"][3]), "row 6, column 'DATE': .* is not later than the row before"),
        (lambda t: edit(t, "DATE", 4, "yesterday"), "row 6, column 'DATE': 'yesterday' is not a date"),
        (lambda t: t.drop(columns="HIGH"), "no column 'HIGH'"),
        (lambda t: t[: HISTORY - 1], "split 'train' is empty"),
        (lambda t: t[:400], "split '(val|test)' is empty"),
    ],
)
def test_bad_days_are_refused(context, table, change, what):
    change(table).to_csv(context.base / "index.csv", index=False)
    with pytest.raises(DataError, match=what) as told:
        volatility(context, **OWN)
    assert told.value.where == str(context.base / "index.csv")


def test_impossible_options_are_refused(context, table):
    for wrong in ({"horizon": 0}, {"val_start": date(2018, 1, 1)}):
        with pytest.raises(DataError, match="give no splits"):
            volatility(context, **{**OWN, **wrong})


def test_new_days_are_read_like_those_of_the_splits(context, table):
    splits = volatility(context, **OWN)
    reader = DailyReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, told = reader.read(context.base / "index.csv")
    assert told["date"][0] == table["DATE"][HISTORY - 1]
    assert told["close"] == pytest.approx(table["CLOSE"][HISTORY - 1 :].tolist())
    test = splits.test.columns()
    np.testing.assert_allclose(rows.columns()["x"][test["index"] - (HISTORY - 1)], test["x"], atol=1e-6)
    table[:100].to_csv(context.base / "short.csv", index=False)
    with pytest.raises(DataError, match="the file has 100 days"):
        reader.read(context.base / "short.csv")


def test_the_vix_has_years_in_every_split(data_folder):
    if not (data_folder / "finance" / "vix").is_dir():
        pytest.skip("no file of the VIX")
    root = data_folder / "finance" / "volatility"
    splits = volatility(replace(DataContext(root=root, base=root)))
    check_splits(splits, name="finance/volatility")
    assert len(splits.train) > 5_000
    assert len(splits.val) > 1_000
    assert len(splits.test) > 1_000
