"""SKAB: whole experiments in one split, each scaled by its own normal start, and recipes for files of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stillhouse
from stillhouse.errors import DataError
from stillhouse.pipeline.data import check_splits
from stillhouse.types import DataContext
from stillhouse_industrial.datasets.skab import NORMAL, SENSORS, skab, standardised

PARTS = {"val": ("valve1/1",), "test": ("valve1/2",)}


@pytest.fixture
def rig(tmp_path: Path, write_rig: Callable[[Path], None]) -> DataContext:
    write_rig(tmp_path)
    return DataContext(root=tmp_path, base=tmp_path)


def test_experiments_are_in_one_split_each_and_their_start_is_not_judged(rig: DataContext) -> None:
    splits = skab(rig, **PARTS, window=10, stride=1)
    assert [set(split.groups or ()) for split in splits.named().values()] == [{"valve1/0"}, {"valve1/1"}, {"valve1/2"}]
    target = splits.test.columns()["target"].numpy()
    assert len(target) == 150 - 10 + 1
    # The first window ends at second 409, the first anomalous second is 450.
    assert np.flatnonzero(target).tolist() == list(range(450 - 409, 500 - 409))
    assert splits.info.classes == ("normal", "anomaly")
    check_splits(splits, name="skab")


def test_each_experiment_is_scaled_by_its_own_start() -> None:
    signals = np.random.default_rng(0).normal(7.0, 3.0, (500, 2))
    signals[:, 1] = 4.0
    signals[450, 1] = 4.5
    found = standardised(signals)
    assert found[:NORMAL, 0].mean() == pytest.approx(0.0, abs=1e-9)
    assert found[:NORMAL, 0].std() == pytest.approx(1.0)
    first = (signals[450, 0] - signals[:400, 0].mean()) / signals[:400, 0].std()
    assert found[450].tolist() == pytest.approx([first, 0.5])
    later = signals.copy()
    later[NORMAL:] += 100.0
    np.testing.assert_array_equal(standardised(later)[:NORMAL], found[:NORMAL])
    assert standardised(later)[NORMAL:, 0].max() == 20.0


def test_what_is_wrong_is_told(rig: DataContext) -> None:
    with pytest.raises(DataError, match=r"valve1/9\.csv is not there"):
        skab(rig)
    with pytest.raises(DataError, match="no file is left for training"):
        skab(rig, val=("valve1/0", "valve1/1"), test=("valve1/2",))
    with pytest.raises(DataError, match="validates and tests"):
        skab(rig, val=("valve1/1",), test=("valve1/1",))
    file = rig.root / "valve1" / "0.csv"
    table = pd.read_csv(file, sep=";")
    table.loc[7, "anomaly"] = 2
    table.to_csv(file, sep=";", index=False)
    with pytest.raises(DataError, match="row 9, column 'anomaly'"):
        skab(rig, **PARTS)
    table[:NORMAL].assign(anomaly=0).to_csv(file, sep=";", index=False)
    with pytest.raises(DataError, match="has 400 seconds"):
        skab(rig, **PARTS)


SHORT = [
    "train.teacher.epochs=1",
    "train.student.epochs=1",
    "evaluate.latency_samples=10",
    "evaluate.throughput_batch=8",
]


def test_the_anomaly_recipe_reports_f1_beside_false_alarms(
    rig: DataContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_rig: Callable[[Path], None]
) -> None:
    write_rig(tmp_path / "data" / "industrial" / "skab")
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path / "data"))
    parts = ["dataset.val=[valve1/1]", "dataset.test=[valve1/2]"]
    run = stillhouse.run(
        "industrial/anomaly", out=tmp_path / "run", overrides=[*SHORT, *parts], seeds=[0], stop_after="evaluate"
    )
    metrics = run.summary["student"]["metrics"]["test"]
    assert {"balanced_accuracy", "false_alarm_rate", "detection_rate", "f1"} <= set(metrics)


def test_the_bearing_recipe_runs_on_a_file_of_ones_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    units = []
    for unit in range(8):
        life = 200 + 10 * unit
        time = np.arange(life)
        tone = np.sin(0.9 * time) * (0.2 + time / life)
        units.append(pd.DataFrame({"unit": unit, "time": time, "vibration": tone + random.normal(0, 0.3, life)}))
    pd.concat(units).to_csv(tmp_path / "bearings.csv", index=False)
    summary = stillhouse.run(
        "industrial/bearing",
        out=tmp_path / "run",
        overrides=[*SHORT, f"dataset.path={tmp_path / 'bearings.csv'}"],
        seeds=[0],
        stop_after="evaluate",
    ).summary
    assert summary["student"]["metrics"]["test"]["rmse"] > 0
    assert "core/pca-linear" in summary["controls"]
    assert len(SENSORS) == 8
