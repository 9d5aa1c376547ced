"""Windows shown as statistics or as spectra."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from stillhouse.errors import DataError
from stillhouse.types import DataContext
from stillhouse_industrial.datasets.process_runs import process_runs
from stillhouse_industrial.datasets.reader import SignalReader
from stillhouse_industrial.datasets.run_to_failure import run_to_failure
from stillhouse_industrial.datasets.runs import RunReader

WINDOW = 64


@pytest.fixture
def context(tmp_path):
    return DataContext(root=tmp_path / "none", base=tmp_path)


@pytest.fixture
def vibration(tmp_path):
    """Twenty runs whose two classes differ in frequency alone, with phases at random."""
    random = np.random.default_rng(0)
    frames = []
    for number in range(20):
        faulty = number % 2 == 1
        phase, time = random.uniform(0, 2 * np.pi), np.arange(4 * WINDOW)
        wave = np.sin(2 * np.pi * (0.17 if faulty else 0.11) * time + phase) + random.normal(0, 0.5, len(time))
        frames.append(pd.DataFrame({"run": f"r{number}", "fault": "worn" if faulty else "normal", "x": wave}))
    table = pd.concat(frames, ignore_index=True)
    table.to_csv(tmp_path / "vibration.csv", index=False)
    return table


def own(context, **options):
    return process_runs(context, path="vibration.csv", window=WINDOW, stride=7, **options)


def accuracy(splits) -> float:
    train, test = splits.train.columns(), splits.test.columns()
    model = LogisticRegression(max_iter=500).fit(train["signal"].flatten(1).numpy(), train["target"].numpy())
    return float(model.score(test["signal"].flatten(1).numpy(), test["target"].numpy()))


def test_a_frequency_that_no_sample_tells_is_told_by_the_spectrum(context, vibration):
    assert accuracy(own(context, features="raw")) < 0.75
    assert accuracy(own(context, features="spectrum")) > 0.95


def test_a_spectrum_has_its_peak_at_the_frequency_of_the_wave(context, vibration):
    splits = own(context, features="spectrum")
    rows = splits.train.columns()
    raised = [rows["signal"][rows["target"] == label, :, 0].mean(dim=0).argmax().item() + 1 for label in (0, 1)]
    assert raised == [round(0.11 * WINDOW), round(0.17 * WINDOW)]
    assert splits.info.inputs["signal"].shape == (WINDOW // 2, 1)
    assert splits.info.meta["features"] == "spectrum"


def test_statistics_are_the_six_of_each_signal_standardised_on_training_rows(context, vibration):
    splits = own(context, features="statistics")
    signal = splits.train.columns()["signal"]
    assert signal.shape[1:] == splits.info.inputs["signal"].shape == (6, 1)
    torch.testing.assert_close(signal.mean(dim=0), torch.zeros(6, 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(signal.std(dim=0, correction=0), torch.ones(6, 1), atol=1e-4, rtol=0)
    spread = own(context).train.columns()["signal"][:, :, 0].std(dim=1, correction=0)
    expected = (spread - spread.mean()) / spread.std(correction=0)
    torch.testing.assert_close(signal[:, 1, 0], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("features", ["statistics", "spectrum"])
def test_held_out_runs_say_nothing_to_the_standardisation(context, vibration, tmp_path, features):
    before = own(context, features=features)
    held = vibration["run"].isin([*before.val.groups, *before.test.groups])
    vibration.loc[held, "x"] *= 100
    vibration.to_csv(tmp_path / "vibration.csv", index=False)
    after = own(context, features=features)
    assert after.reader.state() == before.reader.state()
    torch.testing.assert_close(after.train.columns()["signal"], before.train.columns()["signal"])


@pytest.mark.parametrize("features", ["raw", "statistics", "spectrum"])
def test_new_runs_are_shown_as_those_of_training(context, vibration, tmp_path, features):
    splits = own(context, features=features)
    run = splits.test.groups[0]
    vibration[vibration["run"] == run].to_csv(tmp_path / "new.csv", index=False)
    reader = RunReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, _ = reader.read(tmp_path / "new.csv")
    kept = [at for at, group in enumerate(splits.test.groups) if group == run]
    torch.testing.assert_close(rows.columns()["signal"][::7], splits.test.batch(kept)["signal"])


@pytest.mark.parametrize("features", ["statistics", "spectrum"])
def test_histories_to_failure_are_shown_in_the_same_ways(context, vibration, tmp_path, features):
    table = vibration.assign(time=vibration.groupby("run").cumcount()).drop(columns="fault")
    table.to_csv(tmp_path / "units.csv", index=False)
    splits = run_to_failure(context, path="units.csv", unit="run", window=16, stride=5, cap=None, features=features)
    shape = splits.info.inputs["signal"].shape
    assert shape == {"statistics": (6, 1), "spectrum": (8, 1)}[features]
    reader = SignalReader.from_state(json.loads(json.dumps(splits.reader.state())))
    unit = splits.train.groups[0]
    table[table["run"] == unit].to_csv(tmp_path / "new.csv", index=False)
    rows, _ = reader.read(tmp_path / "new.csv")
    last = [at for at, group in enumerate(splits.train.groups) if group == unit][-1]
    torch.testing.assert_close(rows.columns()["signal"][0], splits.train.row(last)["signal"])


def test_a_window_too_short_for_a_spectrum_is_refused(context, vibration):
    with pytest.raises(DataError, match="window of 5 samples has no spectrum"):
        process_runs(context, path="vibration.csv", window=5, features="spectrum")


def test_a_reader_of_an_earlier_version_shows_samples(context, vibration):
    state = own(context).reader.state()
    del state["representation"]
    assert RunReader.from_state(state).representation.shown == "raw"
