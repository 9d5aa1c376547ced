"""Size, FLOPs, latency: counts by hand; the order and the summary of timings (never their speed)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from stillhouse.evaluation import measure


class Wrapped(nn.Module):
    """A module of torch that takes its input by name."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        found = self.inner(x)
        return found[0] if isinstance(found, tuple) else found


RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


def test_parameters_of_a_module_count_shared_ones_once():
    layer = nn.Linear(4, 4)
    assert measure.parameters(nn.Sequential(layer, layer)) == 20


def test_parameters_of_a_linear_estimator_also_behind_a_scaler():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    assert measure.parameters(pipeline) == 4


def test_parameters_of_trees():
    tree = DecisionTreeClassifier(max_depth=1).fit(X, Y)
    assert measure.parameters(tree) == 2 + 2 * 2  # one split; two leaves of two class values
    forest = RandomForestRegressor(n_estimators=3, max_depth=1, random_state=0).fit(X, X[:, 0])
    assert measure.parameters(forest) == 3 * (2 + 2)
    boosting = HistGradientBoostingRegressor(max_iter=5, max_leaf_nodes=2).fit(X, X[:, 0])
    assert measure.parameters(boosting) == 5 * (2 + 2)


def test_parameters_of_an_ensemble_are_the_sum_and_unknown_models_have_none():
    assert measure.parameters([nn.Linear(2, 1), nn.Linear(3, 1)]) == 7
    assert measure.parameters(SVC().fit(X, Y)) is None
    assert measure.parameters([nn.Linear(2, 1), SVC()]) is None


def test_bytes_on_disk(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "deep" / "b").write_bytes(b"x" * 7)
    assert measure.bytes_on_disk(tmp_path / "a") == 10
    assert measure.bytes_on_disk(tmp_path) == 17


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Linear(10, 5), (1, 10), 2 * 10 * 5),
        (nn.Linear(10, 5), (4, 10), 4 * 2 * 10 * 5),
        (nn.Conv1d(10, 20, 3), (1, 10, 5), 2 * 10 * 20 * 3 * 3),
        (nn.LSTM(14, 64, batch_first=True, bidirectional=True), (1, 30, 14), 2 * 2 * 4 * 64 * (14 + 64) * 30),
        (nn.GRU(14, 8, batch_first=True), (1, 30, 14), 2 * 3 * 8 * (14 + 8) * 30),
        (
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
            (1, 30, 16),
            2 * 30 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 2 * 30 * 30 * 16,
        ),
    ],
)
def test_flops_by_hand(module, shape, expected):
    model = Wrapped(module)
    assert measure.flops(model, {"x": torch.randn(shape)}) == expected
    assert model.training


def test_flops_leave_the_model_as_it_was_and_have_none_for_estimators():
    model = Wrapped(nn.BatchNorm1d(3))
    measure.flops(model, {"x": torch.randn(4, 3)})
    assert model.inner.num_batches_tracked == 0
    assert torch.backends.mha.get_fastpath_enabled()
    assert measure.flops(DecisionTreeClassifier(), {"x": torch.randn(1, 3)}) is None


def test_latency_takes_blocks_of_each_model_in_turn_and_leaves_out_their_first_calls(monkeypatch):
    monkeypatch.setattr(measure, "BLOCK", 2)
    monkeypatch.setattr(measure, "LEAD", 1)
    calls = []
    models = {name: (lambda batch, name=name: calls.append((name, len(batch["x"])))) for name in "abc"}
    raw = measure.latency(
        models, {"x": torch.zeros(1, 2)}, {"x": torch.zeros(8, 2)}, samples=3, throughput_samples=3, warmup=2
    )
    single = "".join(name for name, rows in calls if rows == 1)
    # Two calls to warm up; then a lead that is not counted and two that are; one is left for the second round.
    assert single == "aabbcc" + "aaabbbccc" + "bbccaa"
    assert [len(times["latency_s"]) for times in raw["models"].values()] == [3, 3, 3]
    assert raw["batch"] == 1
    assert raw["throughput_batch"] == 8
    assert raw["threads"] == torch.get_num_threads()
    assert raw["samples"] == 3


def test_the_time_of_a_model_is_its_own_whatever_is_timed_beside_it(monkeypatch):
    """The first call after another model is slow; it is not counted."""
    last, now = [""], [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def model(name, seconds):
        def call(batch):
            now[0] += seconds * (10 if last[0] != name else 1)
            last[0] = name

        return call

    batch = {"x": torch.zeros(1, 2)}
    raw = measure.latency(
        {"large": model("large", 0.01), "small": model("small", 0.001)}, batch, batch, samples=40, budget=1e9
    )
    assert raw["models"]["small"]["latency_s"] == pytest.approx([0.001] * 40)
    assert raw["models"]["small"]["throughput_s"] == pytest.approx([0.001] * 20)


def test_latency_keeps_to_its_budget_but_takes_the_least_rounds():
    raw = measure.latency(
        {"a": lambda batch: None}, {"x": torch.zeros(1)}, {"x": torch.zeros(4)}, samples=10_000, budget=0.0
    )
    assert raw["samples"] == measure.LEAST_ROUNDS
    assert len(raw["models"]["a"]["throughput_s"]) == 3


def test_latency_runs_without_gradients():
    seen = []
    measure.latency(
        {"a": lambda batch: seen.append(torch.is_inference_mode_enabled())},
        {"x": torch.zeros(1)},
        {"x": torch.zeros(4)},
        samples=1,
    )
    assert all(seen)


def test_summary_is_recomputable_from_raw_samples_after_json():
    milliseconds = [float(each) for each in range(1, 102)]
    raw = {
        "throughput_batch": 256,
        "models": {"a": {"latency_s": [each / 1000 for each in milliseconds], "throughput_s": [0.5, 1.0, 4.0]}},
    }
    found = measure.summarise(json.loads(json.dumps(raw)))["a"]
    assert found["latency_ms"] == {"p50": pytest.approx(51.0), "p99": pytest.approx(100.0)}
    assert found["throughput_per_s"] == 256.0
