"""How many CPU threads a training uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info
from torch import nn

import stillhouse
from stillhouse.errors import RecipeError
from stillhouse.recipe import TrainConfig
from stillhouse.training.threads import choose_threads, limited_threads, share
from stillhouse.types import TensorSplit

ROWS = TensorSplit({"x": torch.randn(4, 8, 32, 32), "target": torch.zeros(4)})


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.training.threads.available_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.usefixtures("four_cores")
def test_a_share_is_the_cores_divided_by_what_runs_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    assert share() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert share() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "9")
    assert share() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert share() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert share() == 4, "never more than there are"


@pytest.mark.usefixtures("four_cores")
def test_long_steps_get_the_share_and_short_ones_a_single_thread() -> None:
    large = nn.Sequential(nn.Conv2d(8, 256, 5, padding=2), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1))
    small = nn.Sequential(nn.Flatten(), nn.Linear(8 * 32 * 32, 2))
    assert choose_threads(TrainConfig(batch_size=128), large, ROWS, ["x"]) == 4
    assert choose_threads(TrainConfig(batch_size=128), small, ROWS, ["x"]) == 1
    assert choose_threads(TrainConfig(batch_size=128, threads=3), small, ROWS, ["x"]) == 3
    many = TrainConfig(batch_size=128, threads=500)
    assert choose_threads(many, small, ROWS, ["x"]) == 4, "never more than there are"


@pytest.mark.usefixtures("four_cores")
def test_choosing_leaves_model_and_random_state_alone() -> None:
    model = nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.5)).train()
    before, state = model[0].running_mean.clone(), torch.get_rng_state()
    choose_threads(TrainConfig(batch_size=128), model, ROWS, ["x"])
    assert torch.equal(model[0].running_mean, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert model[1].training


def test_pools_are_limited_inside_and_given_back_afterwards() -> None:
    before = torch.get_num_threads()
    pools = [pool["num_threads"] for pool in threadpool_info()]
    with limited_threads(1):
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert torch.get_num_threads() == before
    assert [pool["num_threads"] for pool in threadpool_info()][: len(pools)] == pools


@pytest.mark.usefixtures("four_cores")
def test_threads_of_a_recipe_reach_training_and_manifest(tmp_path: Path) -> None:
    recipe = {
        "head": "core/multiclass",
        "dataset": {"use": "core/synthetic", "rows": 120},
        "teacher": "core/mlp",
        "student": "core/mlp",
        "train": {"teacher": {"epochs": 1, "threads": 2}, "student": {"epochs": 1, "threads": 1}},
        "evaluate": {"latency_samples": 5},
        "seeds": [0],
        "device": "cpu",
    }
    folder = stillhouse.run(recipe, out=tmp_path / "run").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["threads"]["training"] == {"teacher": [2], "baseline": [1], "student": [1]}
    assert manifest["threads"]["timing"] == 1
    for wrong in (0, "two", True):
        with pytest.raises(RecipeError, match="threads must be 'auto' or a whole number of at least 1"):
            stillhouse.run({**recipe, "train": {"student": {"threads": wrong}}}, out=tmp_path / "none")
