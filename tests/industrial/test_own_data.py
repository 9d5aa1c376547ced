"""The simulator and the user's own run-to-failure files."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import stillhouse
from stillhouse.errors import DataError
from stillhouse.types import DataContext
from stillhouse_industrial.augmenters import blends
from stillhouse_industrial.datasets.reader import SignalReader
from stillhouse_industrial.datasets.run_to_failure import run_to_failure
from stillhouse_industrial.datasets.simulator import simulate, turbofan_sim


@pytest.fixture
def context(tmp_path):
    return DataContext(root=tmp_path / "none", base=tmp_path)


@pytest.fixture
def bearings(tmp_path):
    """Ten bearings of 20 to 38 hours in a CSV: two useful signals, a constant, and a remark."""
    random = np.random.default_rng(0)
    frames = []
    for number in range(10):
        hours = np.arange(20 + 2 * number) * 0.5
        frames.append(
            pd.DataFrame(
                {
                    "bearing": f"B{number}",
                    "hours": hours,
                    "vibration": hours + random.normal(0, 0.1, len(hours)),
                    "temperature": 60 + random.normal(0, 1, len(hours)),
                    "serial": 7.0,
                    "remark": "ok",
                }
            )
        )
    table = pd.concat(frames, ignore_index=True)
    table.to_csv(tmp_path / "bearings.csv", index=False)
    return table


NAMES = {"path": "bearings.csv", "unit": "bearing", "time": "hours"}


def test_simulated_rows_are_the_same_for_a_seed_and_differ_between_seeds(context):
    first, again = turbofan_sim(context), turbofan_sim(context)
    other = turbofan_sim(replace(context, seed=1))
    for name in ("train", "val", "test"):
        assert first.named()[name].fingerprint() == again.named()[name].fingerprint()
        assert first.named()[name].fingerprint() != other.named()[name].fingerprint()


def test_simulated_data_say_so_and_have_the_layout_of_cmapss(context):
    splits = turbofan_sim(context, units=10, test_units=6, sensors=5)
    assert splits.info.simulated
    assert "not real" in splits.info.description
    assert splits.info.inputs["signal"].shape == (30, 5)
    assert len(splits.test) == 6
    groups = [set(split.groups) for split in splits.named().values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 16
    index = torch.cat([split.index() for split in splits.named().values()])
    assert len(torch.unique(index)) == len(index)
    table = simulate(3, 2, 0.1, seed=0)
    assert list(table) == ["unit", "cycle", "setting_1", "setting_2", "setting_3", "sensor_1", "sensor_2"]
    assert (table.groupby("unit")["cycle"].diff().dropna() == 1).all()


def test_simulated_sensors_tell_the_remaining_life(context):
    splits = turbofan_sim(context)
    rows = splits.train.columns()
    late = rows["signal"][:, -10:].mean(dim=1)
    strength = [abs(float(torch.corrcoef(torch.stack([column, rows["target"]]))[0, 1])) for column in late.T]
    assert min(strength) > 0.5


def test_simulated_test_engines_are_cut_before_their_failure(context):
    splits = turbofan_sim(context, cap=None)
    target = splits.test.columns()["target"]
    assert (target > 0).all()
    assert target.max() > 60 > target.min()


def test_simulator_options_without_rows_are_refused(context):
    for options in ({"units": 1}, {"test_units": 0}, {"val_fraction": 0.0}, {"sensors": 0}):
        with pytest.raises(DataError):
            turbofan_sim(context, **options)


def test_own_histories_have_the_time_to_the_last_row_as_label(context, bearings):
    splits = run_to_failure(context, **NAMES, window=8, time_unit="hours", cap=6.0)
    assert splits.info.unit == "hours"
    assert splits.info.meta["sensors"] == ["vibration", "temperature"]
    assert splits.info.target_mean == pytest.approx(float(splits.train.columns()["target"].mean()))
    last = bearings.groupby("bearing")["hours"].transform("max")
    for split in splits.named().values():
        rows = split.columns()
        index = rows["index"].numpy()
        expected = np.minimum(last.to_numpy()[index] - bearings["hours"].to_numpy()[index], 6.0)
        np.testing.assert_allclose(rows["target"], expected)
        assert list(split.groups) == bearings["bearing"].to_numpy()[index].tolist()
    groups = [set(split.groups) for split in splits.named().values()]
    assert [len(group) for group in groups] == [6, 2, 2]
    assert len(set.union(*groups)) == 10


def test_own_histories_are_scaled_by_training_units_only(context, bearings, tmp_path):
    before = run_to_failure(context, **NAMES, window=8)
    held = bearings["bearing"].isin([*before.val.groups, *before.test.groups])
    bearings.loc[held, "vibration"] *= 100
    bearings.to_csv(tmp_path / "bearings.csv", index=False)
    after = run_to_failure(context, **NAMES, window=8)
    assert after.reader.state() == before.reader.state()
    assert after.train.fingerprint() == before.train.fingerprint()
    assert after.test.fingerprint() != before.test.fingerprint()


def test_a_rul_column_serves_units_that_have_not_failed(context, bearings, tmp_path):
    last = bearings.groupby("bearing")["hours"].transform("max")
    bearings["left"] = last - bearings["hours"] + 5.0
    bearings.to_parquet(tmp_path / "bearings.parquet")
    splits = run_to_failure(context, **(NAMES | {"path": "bearings.parquet"}), rul="left", window=8)
    assert splits.info.meta["sensors"] == ["vibration", "temperature"]
    assert float(splits.train.columns()["target"].min()) == 5.0


def test_own_files_are_read_again_for_prediction(context, bearings, tmp_path):
    splits = run_to_failure(context, **NAMES, window=8)
    reader = SignalReader.from_state(json.loads(json.dumps(splits.reader.state())))
    short = bearings[bearings["bearing"] == "B3"].iloc[:5]
    short.to_csv(tmp_path / "new.csv", index=False)
    rows, names = reader.read(tmp_path / "new.csv")
    assert names == {"bearing": ["B3"], "hours": [2]}
    signal = rows.columns()["signal"]
    assert signal.shape == (1, 8, 2)
    assert torch.equal(signal[0, 0], signal[0, 3])  # three rows of padding and the first itself
    (tmp_path / "new.txt").write_text("1 2 3\n")
    with pytest.raises(DataError, match="other sensors"):
        reader.read(tmp_path / "new.txt")


def test_empty_cells_are_filled_forward_within_a_unit_where_that_is_asked_for(context, bearings, tmp_path):
    rows = bearings.index[bearings["bearing"] == "B3"]
    spoilt = bearings.copy()
    spoilt.loc[rows[[0, 5, 6]], "vibration"] = np.nan
    spoilt.to_csv(tmp_path / "bearings.csv", index=False)
    with pytest.raises(
        DataError, match=r"column 'vibration': an empty cell is not a finite number \(3 such rows\)"
    ) as refused:
        run_to_failure(context, **NAMES, window=8)
    assert "dataset.missing=forward" in str(refused.value.fix)
    filled = bearings.copy()
    filled.loc[rows[0], "vibration"] = bearings.loc[rows[1], "vibration"]
    filled.loc[rows[[5, 6]], "vibration"] = bearings.loc[rows[4], "vibration"]
    splits = run_to_failure(context, **NAMES, window=8, missing="forward")
    filled.to_csv(tmp_path / "bearings.csv", index=False)
    expected = run_to_failure(context, **NAMES, window=8)
    for name, split in splits.named().items():
        assert split.fingerprint() == expected.named()[name].fingerprint()
    spoilt[spoilt["bearing"] == "B3"].to_csv(tmp_path / "new.csv", index=False)
    assert splits.reader.read(tmp_path / "new.csv")[0].columns()["signal"].isfinite().all()
    with pytest.raises(DataError, match="not a finite number"):
        expected.reader.read(tmp_path / "new.csv")
    spoilt.loc[rows, "vibration"] = np.nan
    spoilt.to_csv(tmp_path / "bearings.csv", index=False)
    with pytest.raises(DataError, match="unit 'B3' has no value in column 'vibration'"):
        run_to_failure(context, **NAMES, window=8, missing="forward")


def test_the_signals_that_are_used_and_those_that_are_not_are_told(context, bearings):
    said = run_to_failure(context, **NAMES, window=8).info.description
    assert "signals: vibration, temperature" in said
    assert "not used: remark, serial" in said
    assert "10 units (6 for training, 2 for validation, 2 for test)" in said


def test_a_cap_that_most_rows_are_at_is_told(context, bearings):
    with pytest.warns(UserWarning, match=r"^\d\d % of the training rows have dataset\.cap \(1 hours\) left or more"):
        told = run_to_failure(context, **NAMES, window=5, cap=1.0, time_unit="hours")
    assert told.info.description.endswith("; more than 1 hours left count as 1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = run_to_failure(context, **NAMES, window=5, cap=None)
        run_to_failure(context, **NAMES, window=5, cap=10.0)
    assert "count as" not in whole.info.description


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (
            lambda t: t.assign(vibration=["ERR", *t["vibration"].astype(str)[1:]]),
            {},
            "row 2, column 'vibration': 'ERR'",
        ),
        (lambda t: t.assign(vibration=t["vibration"].map(lambda v: f"{v:.2f}".replace(".", ","))), {}, "a point"),
        (lambda t: t.assign(RUL=1.0), {}, "column 'RUL' sounds like the answer"),
        (lambda t: t.assign(remaining_hours=1.0), {}, "column 'remaining_hours' sounds like the answer"),
        (lambda t: t.assign(hours="2023-01-24 02:00:00"), {}, "'2023-01-24 02:00:00' is a date"),
        (lambda t: t[t["bearing"].isin(["B1", "B2"])], {}, r"2 unit\(s\) cannot be split into training, validation"),
        (lambda t: t, {"window": 60}, "10 of 10 units have fewer rows than the window of 60"),
    ],
    ids=["text", "comma", "rul", "remaining", "dates", "two units", "long window"],
)
def test_what_would_be_learnt_from_wrongly_is_refused(context, bearings, tmp_path, change, options, words):
    change(bearings).to_csv(tmp_path / "bearings.csv", index=False)
    with pytest.raises(DataError) as caught:
        run_to_failure(context, **NAMES, **options)
    assert re.search(words, str(caught.value))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unit": "bearings"}, "did you mean 'bearing'"),
        ({"sensors": ("vibrations",)}, "did you mean 'vibration'"),
        ({"sensors": ("remark",)}, "'ok' is not a finite number"),
        ({"sensors": ("hours",)}, "cannot be a sensor"),
        ({"rul": "life"}, "no column 'life'"),
        ({"conditions": 2}, "need the settings"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "leave no split"),
        ({"test_fraction": 0.0}, "leave no split"),
        ({"window": 0}, "window must be positive"),
        ({"window": 30, "short": "raise"}, "fewer than the window"),
        ({"path": "absent.csv"}, "does not exist"),
        ({"path": "bearings.xlsx"}, "cannot be read"),
    ],
)
@pytest.mark.usefixtures("bearings")
def test_what_cannot_be_used_is_refused_with_the_fix(context, options, words):
    with pytest.raises(DataError, match=words):
        run_to_failure(context, **(NAMES | {"window": 8} | options))


def test_a_bad_row_is_named(context, bearings, tmp_path):
    for column, value, words in (
        ("vibration", np.nan, "row 14, column 'vibration'"),
        ("hours", 0.0, "row 14: hours 0 of unit B0 goes back"),
        ("bearing", None, "row 14, column 'bearing': an empty cell"),
    ):
        spoilt = bearings.copy()
        spoilt.loc[12, column] = value
        spoilt.to_csv(tmp_path / "bearings.csv", index=False)
        with pytest.raises(DataError, match=words):
            run_to_failure(context, **NAMES, window=8)
    bearings.assign(left=-1.0).to_csv(tmp_path / "bearings.csv", index=False)
    with pytest.raises(DataError, match="negative"):
        run_to_failure(context, **NAMES, window=8, rul="left")
    bearings[bearings["bearing"] == "B1"].to_csv(tmp_path / "bearings.csv", index=False)
    with pytest.raises(DataError, match="1 unit"):
        run_to_failure(context, **NAMES, window=8)


def test_blends_are_smooth_mixtures_of_training_windows(context):
    splits = turbofan_sim(context)
    count = round(0.5 * len(splits.train))
    made = blends()(splits.train, splits.info, count, 0)
    extra, rows = made.columns(), splits.train.columns()
    assert len(made) == count
    assert "target" not in extra
    assert made.fingerprint() == blends()(splits.train, splits.info, count, 0).fingerprint()
    # The same sensors and noise: means over rows, and step-to-step changes, are those of training windows.
    difference = extra["signal"].mean(dim=(0, 1)) - rows["signal"].mean(dim=(0, 1))
    assert difference.abs().max() < 0.1
    steps = [each["signal"].diff(dim=1).std() for each in (extra, rows)]
    assert float(steps[0] / steps[1]) == pytest.approx(1.0, abs=0.05)


def test_the_diagnosis_recipe_runs_on_a_file_of_ones_own(tmp_path):
    random, runs = np.random.default_rng(0), []
    for number in range(12):
        level = number % 2
        runs.append(
            pd.DataFrame(
                {
                    "run": f"r{number}",
                    "fault": ["healthy", "leak"][level],
                    "flow": random.normal(level, 1, 120),
                    "pressure": random.normal(0, 1 + level, 120),
                }
            )
        )
    pd.concat(runs).to_csv(tmp_path / "plant.csv", index=False)
    summary = stillhouse.run(
        "industrial/diagnosis",
        out=tmp_path / "run",
        overrides=[
            f"dataset.path={tmp_path / 'plant.csv'}",
            "dataset.normal=healthy",
            "train.teacher.epochs=1",
            "train.student.epochs=2",
        ],
        seeds=[0],
        stop_after="evaluate",
    ).summary
    assert summary["teacher"]["metrics"]["test"]["balanced_accuracy"] > 0.9
    assert summary["extra_rows"]["rows"] == 3 * summary["dataset"]["rows"]["train"]
