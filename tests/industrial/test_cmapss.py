"""The C-MAPSS dataset: windows and labels by hand, no leakage, padding, conditions, bad files, new files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import DataError, StillhouseError
from stillhouse.types import DataContext
from stillhouse_industrial.datasets.cmapss import USUAL_SENSORS, cmapss
from stillhouse_industrial.datasets.reader import SignalReader
from stillhouse_industrial.datasets.windows import History, Scaler, cut, cut_points, fleet


def by_hand(official, splits):
    """Scaled signals by unit number of the training file, from the raw rows and the usual sensors."""
    raw = np.loadtxt(official.folder / "train_FD001.txt")
    sensors = raw[:, [4 + number for number in USUAL_SENSORS]]
    units = [int(name.removeprefix("train-")) for name in set(splits.train.groups)]
    fitted = sensors[np.isin(raw[:, 0], units)]
    scaled = (sensors - fitted.mean(axis=0)) / fitted.std(axis=0)
    return {int(unit): scaled[raw[:, 0] == unit] for unit in np.unique(raw[:, 0])}


def test_training_windows_and_labels_equal_a_calculation_by_hand(official):
    splits = cmapss(official.context, window=30, cap=8.0)
    scaled = by_hand(official, splits)
    rows = splits.train.columns()
    at = 0
    for unit in dict.fromkeys(int(name.removeprefix("train-")) for name in splits.train.groups):
        life = official.lives[unit - 1]
        for end in range(30, life + 1):
            np.testing.assert_allclose(rows["signal"][at], scaled[unit][end - 30 : end], atol=1e-5)
            assert rows["target"][at] == min(life - end, 8)
            assert splits.train.groups[at] == f"train-{unit}"
            at += 1
    assert at == len(splits.train) > 50
    assert splits.info.inputs["signal"].shape == (30, 14)
    assert splits.info.target_mean == pytest.approx(float(rows["target"].mean()))
    assert splits.info.target_std == pytest.approx(float(rows["target"].std()))


def test_test_rows_are_the_last_windows_with_the_published_rul_capped(official):
    splits = cmapss(official.context, window=10)
    assert splits.test.columns()["target"].tolist() == [17.0, 90.0, 3.0, 125.0]
    assert list(splits.test.groups) == ["test-1", "test-2", "test-3", "test-4"]
    uncapped = cmapss(official.context, window=10, cap=None)
    assert uncapped.test.columns()["target"].tolist() == [17.0, 90.0, 3.0, 200.0]
    before = sum(official.lives)
    assert splits.test.index().tolist() == [before + sum(official.seen[: n + 1]) - 1 for n in range(4)]


def test_a_short_unit_is_padded_by_its_first_row_or_refused(official):
    splits = cmapss(official.context, window=20)
    window = splits.test.columns()["signal"][1]  # 12 rows were seen
    assert torch.equal(window[:9], window[8:9].expand(9, -1))
    assert not torch.equal(window[8], window[9])
    with pytest.raises(DataError, match="'test-2' has 12 rows"):
        cmapss(official.context, window=20, short="raise")


def test_no_unit_and_no_row_is_in_two_splits(official):
    splits = cmapss(official.context, window=10)
    groups = [set(split.groups) for split in splits.named().values()]
    assert groups[0] | groups[1] == {f"train-{number}" for number in range(1, 11)}
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    index = torch.cat([split.index() for split in splits.named().values()])
    assert len(torch.unique(index)) == len(index)


def test_the_scaler_ignores_validation_and_test_values(official):
    before = cmapss(official.context, window=10)
    for name, units in (("train", set(before.val.groups)), ("test", set(before.test.groups))):
        path = official.folder / f"{name}_FD001.txt"
        table = np.loadtxt(path)
        held = np.isin(table[:, 0], [int(unit.split("-")[1]) for unit in units])
        table[held, 5:] *= 7.0
        official.write(path, table)
    after = cmapss(official.context, window=10)
    assert before.reader.state() == after.reader.state()
    assert before.train.fingerprint() == after.train.fingerprint()
    assert before.val.fingerprint() != after.val.fingerprint()
    assert before.test.fingerprint() != after.test.fingerprint()


def test_the_seed_decides_which_units_are_validation(official):
    same = [cmapss(official.context, window=10) for _ in range(2)]
    assert same[0].val.fingerprint() == same[1].val.fingerprint()
    others = {frozenset(cmapss(replace(official.context, seed=seed), window=10).val.groups) for seed in range(5)}
    assert len(others) > 1
    assert len(set(cmapss(official.context, window=10, val_fraction=0.3).val.groups)) == 3


def test_stride_thins_training_windows_and_keeps_the_last_of_each_unit(official):
    every, third = cmapss(official.context, window=10), cmapss(official.context, window=10, stride=3)
    assert len(third.train) == pytest.approx(len(every.train) / 3, rel=0.1)
    assert set(third.train.index().tolist()) < set(every.train.index().tolist())
    assert (third.train.columns()["target"] == 0).sum() == len(set(third.train.groups))


def test_validation_units_count_alike(official):
    splits = cmapss(official.context, window=10, cuts=7)
    counts = pd.Series(list(splits.val.groups)).value_counts()
    assert (counts == 7).all()


def test_a_fleet_is_the_condition_that_a_unit_flew_in_more_than_the_others():
    def unit(name: str, counts: tuple[int, int, int]) -> History:
        settings = np.repeat([[0.0], [10.0], [20.0]], counts, axis=0)
        zeros = np.zeros((len(settings), 1))
        return History(name=name, times=np.arange(len(settings)), signals=zeros, settings=settings, first_row=0)

    scaler = Scaler(np.array([[0.0], [10.0], [20.0]]), np.ones(1), np.zeros((3, 1)), np.ones((3, 1)))
    # The third condition is the most frequent in all of them, so that it tells nobody apart but the last.
    units = [unit("a", (30, 10, 60)), unit("b", (10, 30, 60)), unit("c", (10, 10, 80))]
    assert fleet(units, scaler).tolist() == [0, 1, 2]


def test_all_windows_of_a_unit_are_of_its_fleet(official):
    context = official.make(official.folder, "FD002", official.modes)
    splits = cmapss(context, subset="FD002", window=5, conditions=3, fleets=True)
    assert "fleet" not in cmapss(context, subset="FD002", window=5, conditions=3).train.row(0)
    for rows in splits.named().values():
        pairs = set(zip(rows.groups, rows.columns(["fleet"])["fleet"].tolist(), strict=True))
        assert len(pairs) == len(set(rows.groups))


def test_signals_are_standardised_within_each_operating_condition(official):
    context = official.make(official.folder, "FD002", official.modes)
    splits = cmapss(context, subset="FD002", window=5, conditions=3)
    assert "sensor_1" not in splits.info.meta["sensors"]
    assert "sensor_5" not in splits.info.meta["sensors"]
    assert len(splits.info.meta["sensors"]) == 18
    signal = splits.train.columns()["signal"][:, -1]
    assert signal.mean(dim=0).abs().max() < 0.5
    assert (signal.std(dim=0) < 1.5).all()
    # With one scaler for all conditions, the condition is what two sensors have most in common.
    found = {}
    for conditions in (1, 3):
        splits = cmapss(context, subset="FD002", window=5, conditions=conditions, sensors=(2, 3))
        found[conditions] = float(torch.corrcoef(splits.train.columns()["signal"][:, -1].T)[0, 1])
    assert found[1] > 0.95
    assert found[3] < 0.8


def test_more_conditions_than_settings_are_refused(official):
    with pytest.raises(DataError, match="50 operating conditions"):
        cmapss(official.make(official.folder, "FD002", official.modes), subset="FD002", conditions=50)


def test_the_sensors_can_be_chosen(official):
    assert cmapss(official.context, window=10, sensors=(11, 4)).info.meta["sensors"] == [
        "sensor_11",
        "sensor_4",
    ]
    for wrong in ((0, 3), (3, 3), (22,), ()):
        with pytest.raises(DataError, match="from 1 to 21"):
            cmapss(official.context, window=10, sensors=wrong)


@pytest.mark.parametrize(
    "options",
    [{"window": 0}, {"stride": 0}, {"cuts": -1}, {"cap": 0.0}, {"val_fraction": 0.0}, {"val_fraction": 1.0}],
)
def test_options_that_leave_no_rows_are_refused(official, options):
    with pytest.raises(StillhouseError) as caught:
        cmapss(official.context, **options)
    assert caught.value.fix


def test_missing_files_are_named_with_the_place_where_they_are_published(tmp_path):
    with pytest.raises(DataError) as caught:
        cmapss(DataContext(root=tmp_path / "cmapss", base=tmp_path), subset="FD003")
    text = str(caught.value)
    for word in (
        "train_FD003.txt",
        "test_FD003.txt",
        "RUL_FD003.txt",
        str(tmp_path / "cmapss"),
        "NASA",
        "https://",
    ):
        assert word in text


def spoil(path: Path, change) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def without_last_columns(lines):
    return [*lines[:-1], " ".join(lines[-1].split()[:20])]


def replaced(row: int, column: int, value: str):
    def change(lines):
        fields = lines[row - 1].split()
        fields[column - 1] = value
        return [*lines[: row - 1], " ".join(fields), *lines[row:]]

    return change


BAD = [
    (without_last_columns, ["has 20 columns, not 26", "ends in the middle"]),
    (lambda lines: [lines[0], *(f"{line} 7" for line in lines[1:])], ["row 2 has 27 columns"]),
    (lambda lines: [*lines[:4], lines[4] + " 1 2 3 4 5", *lines[5:]], ["too many columns", "line 5"]),
    (replaced(3, 7, "nan"), ["row 3", "sensor_2", "'nan'"]),
    (replaced(5, 10, "broken"), ["row 5", "sensor_5", "'broken'"]),
    (replaced(6, 12, "inf"), ["row 6", "sensor_7", "'inf'"]),
    (replaced(4, 2, "3"), ["row 4", "cycle 3", "unit 1", "repeats"]),
    (replaced(4, 2, "1"), ["row 4", "goes back after 3"]),
    (lambda lines: [], ["empty"]),
]


@pytest.mark.parametrize(("change", "words"), BAD)
@pytest.mark.parametrize("name", ["train_FD001.txt", "test_FD001.txt"])
def test_a_malformed_file_is_refused_with_its_name_and_row(official, name, change, words):
    spoil(official.folder / name, change)
    with pytest.raises(DataError) as caught:
        cmapss(official.context, window=10)
    text = str(caught.value)
    assert all(word in text for word in [*words, name])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("17\n90\n3\n", "3 values for 4 test units"),
        ("17\n90\n3\nx\n", "row 4"),
        ("17\n90 4\n3\n200\n", "row 2"),
        ("17\n-2\n3\n9\n", "row 2"),
        ("", "empty"),
    ],
)
def test_a_malformed_rul_file_is_refused(official, values, words):
    (official.folder / "RUL_FD001.txt").write_text(values)
    with pytest.raises(DataError, match=words) as caught:
        cmapss(official.context, window=10)
    assert "RUL_FD001.txt" in str(caught.value)


@given(length=st.integers(1, 60), window=st.integers(1, 40), sensors=st.integers(1, 3))
def test_cut_gives_the_last_rows_seen_padded_in_front(length, window, sensors):
    signals = np.arange(length * sensors, dtype=np.float32).reshape(length, sensors)
    for end in {1, (length + 1) // 2, length}:
        got = cut(signals, [end], window)[0]
        expected = [signals[max(0, end - window + step)] for step in range(window)]
        assert np.array_equal(got, np.array(expected))


@given(length=st.integers(1, 300), window=st.integers(1, 60), cuts=st.integers(1, 40), seed=st.integers(0, 99))
def test_cut_points_are_distinct_and_inside_the_unit(length, window, cuts, seed):
    ends = cut_points(length, window, cuts, np.random.default_rng(seed))
    assert 1 <= len(ends) <= cuts
    assert len(set(ends)) == len(ends)
    assert all(min(window, length) <= end <= length for end in ends)


def test_the_reader_gives_the_test_windows_again_after_a_trip_through_json(official, tmp_path):
    splits = cmapss(official.context, window=20)
    reader = SignalReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, names = reader.read(official.folder / "test_FD001.txt")
    assert torch.equal(rows.columns()["signal"], splits.test.columns()["signal"])
    assert names == {"unit": ["1", "2", "3", "4"], "cycle": list(official.seen)}
    table = pd.DataFrame(np.loadtxt(official.folder / "test_FD001.txt"))
    table.columns = [
        "unit",
        "cycle",
        *(f"setting_{n}" for n in range(1, 4)),
        *(f"sensor_{n}" for n in range(1, 22)),
    ]
    table.to_csv(tmp_path / "new.csv", index=False)
    table.astype({"unit": int}).to_parquet(tmp_path / "new.parquet")
    for name in ("new.csv", "new.parquet"):
        again, found = reader.read(tmp_path / name)
        torch.testing.assert_close(again.columns()["signal"], splits.test.columns()["signal"])
        assert found == names


def test_the_reader_standardises_by_condition_after_a_trip_through_json(official):
    splits = cmapss(official.make(official.folder, "FD002", official.modes), subset="FD002", window=5, conditions=3)
    reader = SignalReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, _ = reader.read(official.folder / "test_FD002.txt")
    assert torch.equal(rows.columns()["signal"], splits.test.columns()["signal"])


def test_the_reader_refuses_what_it_cannot_use(official, tmp_path):
    reader = cmapss(official.context, window=10).reader
    table = pd.DataFrame({"unit": [1, 1], "cycle": [1, 2]} | {f"sensor_{n}": [0.5, 0.6] for n in range(1, 22)})
    cases = {
        "missing.csv": (table.drop(columns="sensor_7"), "no column 'sensor_7'"),
        "gap.csv": (table.assign(sensor_4=[0.1, np.nan]), "row 3, column 'sensor_4'"),
        "text.csv": (table.assign(sensor_4=["0.1", "high"]), "'high'"),
        "nobody.csv": (table.assign(unit=[1, np.nan]), "row 3, column 'unit': an empty cell"),
        "twice.csv": (table.assign(cycle=[2, 2]), "repeats"),
        "empty.csv": (table.iloc[:0], "no rows"),
    }
    for name, (content, words) in cases.items():
        content.to_csv(tmp_path / name, index=False)
        with pytest.raises(DataError, match=words) as caught:
            reader.read(tmp_path / name)
        assert name in str(caught.value)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    for name in ("broken.parquet", "absent.csv", "absent.txt", "sheet.xlsx"):
        with pytest.raises(DataError) as caught:
            reader.read(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.data
@pytest.mark.skipif("STILLHOUSE_DATA" not in os.environ, reason="STILLHOUSE_DATA is not set")
def test_real_fd001_has_the_published_sizes():
    root = Path(os.environ["STILLHOUSE_DATA"]) / "industrial" / "cmapss"
    assert [sum(1 for _ in (root / f"{name}_FD001.txt").open()) for name in ("train", "test")] == [
        20631,
        13096,
    ]
    splits = cmapss(DataContext(root=root, base=root))
    assert len(set(splits.train.groups)) == 80
    assert len(set(splits.val.groups)) == 20
    assert splits.test.columns()["signal"].shape == (100, 30, 14)
    assert len(set(splits.test.groups)) == 100
    assert splits.test.index().max() == 20631 + 13096 - 1
    assert splits.train.columns()["signal"].isfinite().all()
    held = [int(name.removeprefix("train-")) for name in set(splits.val.groups)]
    units = np.loadtxt(root / "train_FD001.txt", usecols=0).astype(int)
    every = cmapss(DataContext(root=root, base=root), window=1)
    assert len(every.train) == 20631 - np.isin(units, held).sum()


def test_young_units_are_trained_on_when_first_is_below_the_window(official):
    splits = cmapss(official.context, window=20, first=5)
    lives = {f"train-{number}": life for number, life in enumerate(official.lives, start=1)}
    assert len(splits.train) == sum(lives[name] - 4 for name in set(splits.train.groups))
    young = splits.train.columns()["signal"][0]  # five rows were seen
    assert torch.equal(young[:16], young[15:16].expand(16, -1))
    assert not torch.equal(young[15], young[16])
    assert len(cmapss(official.context, window=20).train) < len(splits.train)
    with pytest.raises(DataError, match="first must be positive"):
        cmapss(official.context, first=0)
