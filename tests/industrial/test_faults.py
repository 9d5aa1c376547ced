"""Process faults: the Tennessee Eastman files, the simulated process, the reader of new runs, and the head."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import DataError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.extra_rows import make_extra_rows
from stillhouse.plugins.manager import default_manager
from stillhouse.recipe import resolve
from stillhouse.types import DataContext, DataInfo, Task, TensorSpec
from stillhouse_industrial.datasets.process_runs import process_runs
from stillhouse_industrial.datasets.process_simulator import CLASSES, process_sim, simulate
from stillhouse_industrial.datasets.runs import RunReader
from stillhouse_industrial.datasets.tables import TEP_VARIABLES
from stillhouse_industrial.datasets.tennessee_eastman import tennessee_eastman
from stillhouse_industrial.features import window_statistics
from stillhouse_industrial.heads import Faults
from stillhouse_industrial.teachers import gradient_boosting

SAMPLES, TEST_SAMPLES = 60, 180


def write(path: Path, values: np.ndarray) -> None:
    """As the official files are: blanks before and between the values."""
    path.write_text("".join("".join(f"  {value:.7e}" for value in row) + "\n" for row in values))


@pytest.fixture
def official(tmp_path: Path) -> DataContext:
    """Normal operation and the faults 1 and 4 in the official layout, ``d00.dat`` transposed."""
    random = np.random.default_rng(0)
    for number in (0, 1, 4):
        train = random.normal(number, 1, (SAMPLES, 52))
        write(tmp_path / f"d{number:02d}.dat", train.T if number == 0 else train)
        write(tmp_path / f"d{number:02d}_te.dat", random.normal(number, 1, (TEST_SAMPLES, 52)))
    return DataContext(root=tmp_path, base=tmp_path)


def tiny(context: DataContext, **options):
    return tennessee_eastman(context, **{"faults": (1, 4), "window": 10, "val_fraction": 0.3, **options})


def test_official_files_become_windows_of_every_sample(official):
    splits = tiny(official)
    assert splits.info.classes == ("normal", "fault 1", "fault 4")
    assert splits.info.inputs["signal"] == TensorSpec((10, 52), "float32")
    assert [len(split) for split in splits.named().values()] == [3 * (42 - 9), 3 * (18 - 9), 3 * (180 - 9)]
    whole = splits.train.columns()["signal"][:, -1]
    assert whole.mean().item() == pytest.approx(0, abs=0.05)
    normal = splits.train.columns()["target"] == 0
    assert whole[normal].mean() < whole[~normal].mean()


def test_faults_of_test_runs_begin_at_sample_161(official):
    target = tiny(official).test.columns(["target"])["target"].reshape(3, -1)
    first = 160 - 9
    assert (target[:, :first] == 0).all()
    assert target[:, first:].unique(dim=1).flatten().tolist() == [0, 1, 2]


def test_no_sample_is_in_windows_of_training_and_validation(official):
    splits = tiny(official)
    last = {name: set(split.index().tolist()) for name, split in splits.named().items()}
    reached = {name: {row - back for row in rows for back in range(10)} for name, rows in last.items()}
    assert not reached["train"] & reached["val"]
    assert not reached["train"] & reached["test"]
    assert not set(splits.train.groups) & set(splits.val.groups)


def test_recipe_mixes_three_windows_for_each_training_window(official):
    splits = tiny(official)
    assert splits.unlabelled is None
    recipe = resolve("industrial/tep-faults", default_manager().registry)
    made = make_extra_rows(recipe, splits)
    mixed, whole = made.rows.columns(), splits.train.columns()["signal"]
    assert len(mixed["signal"]) == 3 * len(whole)
    assert (mixed["signal"] <= whole.amax(0)).all()
    assert (mixed["signal"] >= whole.amin(0)).all()
    assert mixed["signal"].std() < whole.std()


def test_missing_files_are_named(official, tmp_path):
    with pytest.raises(DataError, match=r"missing d02\.dat, d02_te\.dat") as caught:
        tiny(official, faults=(1, 2))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:200]], "row 60 has"),
        (lambda lines: [line[:400] for line in lines], "neither is 52"),
        (lambda lines: [lines[0].replace("e", "x", 1), *lines[1:]], "row 1, column 'column 1'"),
        (lambda lines: [], "empty"),
    ],
    ids=["truncated", "columns", "text", "empty"],
)
def test_spoilt_files_are_refused_by_name(official, tmp_path, spoil, message):
    path = tmp_path / "d04.dat"
    path.write_text("\n".join(spoil(path.read_text().splitlines())))
    with pytest.raises(DataError, match=message) as caught:
        tiny(official)
    assert "d04.dat" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faults": (1, 1)}, "distinct"),
        ({"faults": (22,)}, "from 1 to 21"),
        ({"window": 0}, "window must be positive"),
        ({"test_stride": 0}, "stride must be positive"),
        ({"window": 50}, "without a whole window"),
    ],
)
def test_options_that_leave_nothing_are_refused(official, options, message):
    with pytest.raises(DataError, match=message):
        tiny(official, **options)


def test_new_files_are_read_as_at_training(official, tmp_path):
    splits = tiny(official)
    reader = RunReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, who = reader.read(tmp_path / "d01_te.dat")
    assert torch.equal(rows.columns()["signal"], splits.test.columns()["signal"][171:342])
    assert who["run"] == ["d01_te"] * 171
    assert who["sample"] == list(range(10, 181))
    assert "target" not in rows.columns()


def test_a_table_of_several_runs_is_read_run_by_run(official, tmp_path):
    reader = tiny(official).reader
    values = np.loadtxt(tmp_path / "d01_te.dat")[:24]
    table = pd.DataFrame(values, columns=list(TEP_VARIABLES)).assign(run=["a"] * 12 + ["b"] * 12)
    table.to_csv(tmp_path / "new.csv", index=False)
    rows, who = reader.read(tmp_path / "new.csv")
    assert who == {"run": ["a"] * 3 + ["b"] * 3, "sample": [10, 11, 12] * 2}
    assert len(rows) == 6
    table.drop(columns="xmv_3").to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError, match="no column 'xmv_3'"):
        reader.read(tmp_path / "new.csv")
    table.iloc[:5].to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError, match="fewer than the window of 10"):
        reader.read(tmp_path / "new.csv")


@pytest.fixture
def context(tmp_path):
    return DataContext(root=tmp_path / "none", base=tmp_path)


SMALL = {"runs": 2, "val_runs": 1, "test_runs": 1}


def test_the_simulated_process_is_the_same_for_a_seed(context):
    first, again = process_sim(context, **SMALL), process_sim(context, **SMALL)
    other = process_sim(replace(context, seed=1), **SMALL)
    for name in ("train", "val", "test"):
        assert first.named()[name].fingerprint() == again.named()[name].fingerprint()
        assert first.named()[name].fingerprint() != other.named()[name].fingerprint()
    assert first.info.simulated
    assert set(first.info.classes) == set(CLASSES)


def test_runs_are_whole_in_each_split(context):
    splits = process_sim(context, **SMALL, unlabelled_runs=1)
    assert len(set(splits.train.groups)) == 2 * len(CLASSES)
    assert "target" not in splits.unlabelled.columns()
    everything = torch.cat([*(split.index() for split in splits.named().values()), splits.unlabelled.index()])
    assert len(everything.unique()) == len(everything)


def test_controllers_hold_the_process_and_faults_show():
    faults = np.repeat(np.arange(len(CLASSES)), 20)
    signals = simulate(faults, 80, 30, seed=0)
    assert np.isfinite(signals).all()
    normal = signals[:20]
    assert normal[:, :, 0].mean() == pytest.approx(1.0, abs=0.02)
    assert normal[:, :, 3].mean() == pytest.approx(50.0, abs=0.5)
    before, after = signals[:, :30], signals[:, 60:]
    moved = np.abs(after.mean(1) - before.mean(1)) / before[:20].std(axis=(0, 1))
    spread = after.std(1) / before.std(1)
    for fault in range(1, len(CLASSES)):
        mine = faults == fault
        shows = max((moved[mine].mean(0) / moved[:20].mean(0)).max(), (spread[mine].mean(0)).max())
        assert shows > 1.5, CLASSES[fault]


def test_a_fault_changes_nothing_before_it_sets_in():
    faults = np.arange(len(CLASSES))
    signals, healthy = simulate(faults, 40, 30, seed=3), simulate(np.zeros_like(faults), 40, 30, seed=3)
    assert np.array_equal(signals[:, :30], healthy[:, :30])
    assert not np.array_equal(signals[1:, 30:], healthy[1:, 30:])


@pytest.mark.parametrize("options", [{"runs": 0}, {"onset": 5}, {"onset": 90}, {"unlabelled_runs": -1}])
def test_a_process_without_rows_is_refused(context, options):
    with pytest.raises(DataError, match="simulator needs"):
        process_sim(context, **options)


@pytest.fixture
def plant(tmp_path):
    """Four runs each of normal, leak and fouling, and one that nobody diagnosed."""
    random = np.random.default_rng(0)
    frames = []
    for number in range(13):
        kind = ("normal", "leak", "fouling", None)[min(number // 4, 3)]
        fault = [None] * 30 if kind is None else ["normal"] * 10 + [kind] * 20
        frames.append(pd.DataFrame({"run": f"r{number}", "fault": fault, "level": random.normal(size=30)}))
    table = pd.concat(frames, ignore_index=True).assign(flow=lambda rows: rows["level"] * 2, remark="ok")
    table.to_csv(tmp_path / "plant.csv", index=False)
    return table


def test_own_runs_stand_in_one_split_each_and_every_fault_in_all(plant, context):
    splits = process_runs(context, path="plant.csv", window=5)
    assert splits.info.classes == ("normal", "fouling", "leak")
    assert splits.info.meta["variables"] == ["level", "flow"]
    groups = {name: set(split.groups) for name, split in splits.named().items()}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 12
    for split in splits.named().values():
        assert split.columns(["target"])["target"].unique().tolist() == [0, 1, 2]
    assert len(splits.unlabelled) == 26


def test_columns_that_cannot_be_signals_are_left_out_unless_they_are_named(plant, context, tmp_path):
    at = plant.groupby("run").cumcount()
    number = plant["run"].str[1:].astype(int)
    code = plant["fault"].map({"normal": 3, "leak": 1, "fouling": 2}).fillna(9)
    changed = plant.assign(second=at * 0.1, serial=number, state=code, machine=number // 5)
    changed.to_csv(tmp_path / "plant.csv", index=False)
    with pytest.warns(UserWarning, match="and is left out") as caught:
        found = process_runs(context, path="plant.csv", window=5)
    assert found.info.meta["variables"] == ["level", "flow", "machine"]
    assert "signals: level, flow, machine" in found.info.description
    told = " | ".join(str(each.message) for each in caught)
    for words in (
        "column 'second' only increases within every run, as time does, and is left out",
        "column 'serial' gives each run a number of its own, and is left out",
        "column 'state' says the same as the label, and is left out",
        "constant within every run: machine",
    ):
        assert words in told
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = process_runs(context, path="plant.csv", window=5, variables=("level", "second"))
    assert named.info.meta["variables"] == ["level", "second"]


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda t: t[t["run"] != "r4"][lambda t: t["run"] != "r5"], {}, "2 runs of class 'leak'"),
        (lambda t: t.assign(fault=t["fault"].where(t.index != 5)), {}, "row 7: run 'r0' is labelled in part"),
        (lambda t: t.assign(level=t["level"].where(t.index != 3)), {}, "row 5, column 'level'"),
        (lambda t: t, {"normal": "ok"}, "no row has the label 'ok'"),
        (lambda t: t, {"label": "falt"}, "no column 'falt'"),
        (lambda t: t, {"window": 31}, r"run 'r0' has 30 rows, fewer than the window of 31"),
        (lambda t: t, {"test_fraction": 0.9}, "leave no split"),
        (lambda t: t[["run", "fault", "remark"]], {}, "no numeric column"),
    ],
)
def test_own_runs_that_cannot_be_used_are_refused(plant, context, tmp_path, spoil, options, message):
    spoil(plant).to_csv(tmp_path / "plant.csv", index=False)
    with pytest.raises(DataError, match=message):
        process_runs(context, path="plant.csv", **{"window": 5, **options})


def head(classes=("normal", "leak", "fouling"), **options) -> Faults:
    return Faults(DataInfo(inputs={"signal": TensorSpec((20, 10))}, classes=classes), **options)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_metrics_equal_counts_over_single_rows(pairs):
    prediction = torch.nn.functional.one_hot(torch.tensor([mine for mine, _ in pairs]), 3).float()
    found = head().evaluate(prediction, {"target": torch.tensor([true for _, true in pairs])})
    recalls, detected = [], []
    for label in sorted({true for _, true in pairs}):
        said = [mine for mine, true in pairs if true == label]
        recalls.append(sum(mine == label for mine in said) / len(said))
        if label:
            detected.append(sum(mine != 0 for mine in said) / len(said))
    assert found["balanced_accuracy"] == pytest.approx(sum(recalls) / len(recalls))
    assert found["accuracy"] == pytest.approx(sum(mine == true for mine, true in pairs) / len(pairs))
    normal = [mine for mine, true in pairs if true == 0]
    assert found.get("false_alarm_rate") == (
        pytest.approx(sum(mine != 0 for mine in normal) / len(normal)) if normal else None
    )
    assert found.get("detection_rate") == (pytest.approx(sum(detected) / len(detected)) if detected else None)


def test_normal_operation_may_be_any_class():
    prediction = torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])
    found = head(normal="leak").evaluate(prediction, {"target": torch.tensor([1, 1])})
    assert found["false_alarm_rate"] == 0.5
    with pytest.raises(DataError, match="'leek'") as caught:
        head(normal="leek")
    assert "leak" in str(caught.value)


def test_gradient_boosting_learns_classes(context):
    splits = process_sim(context, runs=3, val_runs=1, test_runs=2)
    task = Task(info=splits.info, kind=OutputKind.MULTICLASS, outputs=len(CLASSES))
    model = gradient_boosting(task, max_iter=10, min_samples_leaf=5, learning_rate=0.3)
    train, test = splits.train.columns(), splits.test.columns()
    model.fit(window_statistics(train), train["target"].numpy())
    assert (model.predict(window_statistics(test)) == test["target"].numpy()).mean() > 0.4


@pytest.mark.skipif("STILLHOUSE_DATA" not in os.environ, reason="STILLHOUSE_DATA is not set")
def test_the_official_files_have_the_published_sizes():
    root = Path(os.environ["STILLHOUSE_DATA"]) / "industrial" / "tennessee-eastman"
    if not root.is_dir():
        pytest.skip("the Tennessee Eastman files are not there")
    splits = tennessee_eastman(DataContext(root=root, base=root), faults=(1, 4), window=20)
    assert len(splits.train) + len(splits.val) == 500 + 2 * 480 - 6 * 19
    assert len(splits.test) == 3 * (960 - 19)
    assert splits.test.columns(["target"])["target"].bincount().tolist() == [941 + 2 * 141, 800, 800]
