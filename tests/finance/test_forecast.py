"""Forecasts of many hours: windows by hand, the months of the protocol, references, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import stillhouse
from stillhouse.errors import DataError
from stillhouse.types import DataContext, DataInfo
from stillhouse_finance.datasets.forecast import CHANNELS, HOURS, build, ett, hours_sim
from stillhouse_finance.heads import Forecast

VALUES = np.random.default_rng(0).normal(5.0, 2.0, (200, 2)).cumsum(axis=0)


def made(**changes):
    return build(VALUES, (100, 50, 50), **{"past": 24, "ahead": 6, "step": 1, "description": "test", **changes})


def test_windows_are_those_of_the_series_less_the_last_known_value():
    splits = made()
    scaled = (VALUES - VALUES[:100].mean(0)) / VALUES[:100].std(0)
    rows = splits.val.columns()
    assert len(splits.val) == (50 - 6 + 1) * 2
    for position in (0, 1, 7, len(splits.val) - 1):
        start, channel = divmod(int(rows["index"][position]), 2)
        assert start == 100 + position // 2
        last = scaled[start - 1, channel]
        np.testing.assert_allclose(rows["x"][position], scaled[start - 24 : start, channel] - last, atol=1e-4)
        np.testing.assert_allclose(rows["target"][position], scaled[start : start + 6, channel] - last, atol=1e-4)
        np.testing.assert_allclose(rows["yesterday"][position], rows["x"][position])
        assert torch.equal(splits.val.row(position)["x"], rows["x"][position])
    assert torch.equal(splits.val.index(), rows["index"])


def test_predicted_hours_of_a_split_are_in_no_other_and_steps_thin_out_training_alone():
    splits = made(step=5)
    hours = {}
    for name, split in splits.named().items():
        starts = split.index() // 2
        hours[name] = {int(start) + hour for start in starts for hour in range(6)}
    assert max(hours["train"]) < 100 <= min(hours["val"])
    assert max(hours["val"]) < 150 <= min(hours["test"])
    assert max(hours["test"]) == 199
    assert splits.train.until == [time + 5 for time in splits.train.times]
    assert len(splits.train) == len(range(24, 95, 5)) * 2
    assert len(splits.test) == 45 * 2
    assert splits.train.fingerprint() != made().train.fingerprint()


def test_the_file_has_the_months_of_the_protocol(tmp_path: Path):
    context = DataContext(root=tmp_path / "finance" / "ett", base=tmp_path)
    with pytest.raises(DataError, match=r"ETTh1\.csv is not there"):
        ett(context)
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(sum(HOURS) + 9, 7)), columns=CHANNELS)
    table.insert(0, "date", pd.date_range("2016-07-01", periods=len(table), freq="h"))
    (tmp_path / "industrial" / "ett").mkdir(parents=True)  # where others keep it
    file = tmp_path / "industrial" / "ett" / "ETTh1.csv"
    table.to_csv(file, index=False)
    splits = ett(context)
    assert len(splits.test) == (2880 - 96 + 1) * 7
    assert len(splits.train) == (8640 - 336 - 96 + 1) * 7
    table.drop(index=40).to_csv(file, index=False)
    with pytest.raises(DataError, match="row 42, column 'date'"):
        ett(context)


def test_references_by_hand():
    head = Forecast(DataInfo(inputs={}, meta={"ahead": 30}))
    day = torch.arange(24.0)[None]
    found = head.references({"yesterday": day})
    assert found["persistence"].tolist() == [[0.0] * 30]
    assert found["seasonal naive"][0].tolist() == [*range(24), *range(6)]
    rows = {"target": torch.ones(1, 30), "yesterday": day}
    assert head.evaluate(found["persistence"], rows) == {"mse": 1.0, "mae": 1.0}


@pytest.mark.parametrize("changes", [{"past": 12}, {"ahead": 60}, {"step": 0}, {"past": 99}])
def test_what_leaves_no_windows_is_told(changes):
    with pytest.raises(DataError, match="leave no windows"):
        made(**changes)


def test_the_demo_is_better_than_the_day_before(tmp_path: Path):
    summary = stillhouse.run(
        "finance/forecast-demo",
        out=tmp_path / "run",
        overrides=["train.teacher.epochs=2", "train.student.epochs=4", "evaluate.latency_samples=10"],
        seeds=[0],
        stop_after="evaluate",
    ).summary
    assert summary["student"]["metrics"]["test"]["mse"] < summary["references"]["seasonal naive"]["mse"]
    assert summary["controls"]["finance/ridge"]["metrics"]["test"]["mse"] > 0
    one, two = (hours_sim(DataContext(root=tmp_path, base=tmp_path, seed=seed)) for seed in (1, 2))
    assert one.train.fingerprint() != two.train.fingerprint()
