"""Stocks: which rows there are, features without a look ahead, targets by hand, and what is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import stillhouse
from stillhouse.errors import DataError
from stillhouse.types import DataContext, DataInfo
from stillhouse_finance.datasets.stocks import FALL, RISE, build, daily, feature_names, simulate, stocks, stocks_sim
from stillhouse_finance.heads import Volume

EDGES = (date(2014, 1, 1), date(2015, 8, 1), date(2015, 10, 1), date(2015, 12, 31))


@pytest.fixture(scope="module")
def given() -> dict[str, pd.DataFrame]:
    return simulate(3, np.random.default_rng(0))


def made(tables, goal="movement", **changes):
    return build(tables, **{"goal": goal, "window": 3, "edges": EDGES, "description": "test", **changes})


def test_rows_and_movements_are_those_of_the_protocol(given):
    splits = made(given)
    expected = {"train": [], "val": [], "test": []}
    for table in given.values():
        close, days = table["Adj Close"].to_numpy(), table["Date"].dt.date.to_numpy()
        for at in range(1, len(close)):
            change = close[at] / close[at - 1] - 1
            part = next(
                (
                    name
                    for name, low, high in zip(expected, EDGES, (*EDGES[1:3], date(2016, 1, 1)), strict=False)
                    if low <= days[at] < high
                ),
                None,
            )
            if part and (change <= FALL or change > RISE):
                expected[part].append(int(change > RISE))
    for name, wanted in expected.items():
        rows = splits.named()[name].columns()
        assert rows["target"].tolist() == wanted
    assert splits.info.classes == ("fall", "rise")
    assert max(splits.train.times) < min(splits.val.times)
    assert max(splits.val.times) < min(splits.test.times)


def test_volumes_are_measured_against_the_20_days_before(given):
    splits = made({"A": given["SIM00"]}, goal="volume")
    volume = np.log(given["SIM00"]["Volume"].to_numpy())
    rows = splits.test.columns()
    for row in (0, 5, -1):
        at = int(rows["index"][row])
        assert float(rows["target"][row]) == pytest.approx(volume[at] - volume[at - 20 : at].mean(), rel=1e-4)
        assert float(rows["yesterday"][row]) == pytest.approx(
            volume[at - 1] - volume[at - 21 : at - 1].mean(), rel=1e-4
        )
    assert splits.info.target_std == pytest.approx(float(splits.train.columns()["target"].numpy().std()), rel=1e-4)


@pytest.mark.parametrize("goal", ["movement", "volume"])
def test_nothing_of_the_predicted_day_is_among_the_features(given, goal):
    cut = 500
    day = given["SIM00"]["Date"].iloc[cut]
    changed = {name: table.copy() for name, table in given.items()}
    for table in changed.values():
        later = table["Date"] >= day
        table.loc[later, ["Open", "High", "Low", "Close", "Adj Close", "Volume"]] *= 3.0
    before, after = (made(each, goal=goal, edges=EDGES) for each in (given, changed))
    moment = float(day.to_datetime64().astype("datetime64[D]").astype(np.int64))

    def until(splits):
        part = next(each for each in splits.named().values() if moment in each.times)
        at = [position for position, time in enumerate(part.times) if time <= moment]
        ids = part.index()[at].tolist()
        return dict(zip(ids, part.columns()["x"][at], strict=True))

    one, two = until(before), until(after)
    both = one.keys() & two.keys()
    assert both
    for each in both:
        torch.testing.assert_close(one[each], two[each])


def test_features_have_the_latest_day_first(given):
    names = feature_names(2)
    assert names[:2] == ["open_over_close_1d_ago", "high_over_close_1d_ago"]
    splits = made(given, window=2)
    row = splits.train.columns()
    table = daily(given["SIM00"])
    at = int(row["index"][0])
    mean, std = (splits.info.meta[f"feature_{each}"] for each in ("mean", "std"))
    for place, column, back in ((3, "return", 1), (10, "return", 2), (0, "Open", 1)):
        value = float(row["x"][0, place]) * std[place] + mean[place]
        assert value == pytest.approx(float(table[column].iloc[at - back]), rel=1e-3, abs=1e-6)


def test_files_are_read_and_refused(given, tmp_path):
    context = DataContext(root=tmp_path / "stocks", base=tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        stocks(context)
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(DataError, match=r"no \.csv file"):
        stocks(context, path="mine")
    for name, table in given.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    assert len(stocks(context, path="mine").train) == len(made(given, window=5).train)
    gap = given["SIM00"].copy()
    gap.loc[10, ["Open", "High", "Low", "Close", "Adj Close", "Volume"]] = np.nan
    gap.to_csv(folder / "SIM00.csv", index=False)
    assert len(stocks(context, path="mine").test) == len(made(given, window=5).test)
    bad = given["SIM00"].copy()
    bad.loc[3, "Low"] = 0.0
    bad.to_csv(folder / "SIM00.csv", index=False)
    with pytest.raises(DataError, match="row 5, column 'Low'"):
        stocks(context, path="mine")
    given["SIM00"].iloc[::-1].to_csv(folder / "SIM00.csv", index=False)
    with pytest.raises(DataError, match="later than the row before"):
        stocks(context, path="mine")
    given["SIM00"].to_csv(folder / "SIM00.csv", index=False)
    with pytest.raises(DataError, match="'test' is empty"):
        stocks(context, path="mine", test_start=date(2020, 1, 1), test_end=date(2020, 2, 1))
    with pytest.raises(DataError, match="give no splits"):
        stocks(context, path="mine", window=0)


def test_references_are_yesterday_and_the_usual():
    head = Volume(DataInfo(inputs={}, target_std=0.5))
    rows = {"yesterday": torch.tensor([0.2, -0.4]), "target": torch.tensor([0.1, 0.0])}
    found = head.references(rows)
    assert found["yesterday"][:, 0].tolist() == pytest.approx([0.2, -0.4])
    assert found["mean of 20 days"][:, 0].tolist() == [0.0, 0.0]
    assert found["yesterday"][:, 1].exp().tolist() == pytest.approx([0.25, 0.25])


def test_the_demo_is_better_than_yesterday(tmp_path: Path):
    summary = stillhouse.run(
        "finance/volume-demo",
        out=tmp_path / "run",
        overrides=["train.teacher.epochs=6", "train.student.epochs=6", "evaluate.latency_samples=10"],
        seeds=[0],
        stop_after="evaluate",
    ).summary
    assert summary["student"]["metrics"]["test"]["rmse"] < summary["references"]["yesterday"]["rmse"]
    assert stocks_sim(DataContext(root=tmp_path, base=tmp_path, seed=1), goal="movement").info.simulated
