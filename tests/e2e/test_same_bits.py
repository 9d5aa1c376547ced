"""How `python -m benchmarks.same_bits` compares two run folders."""

from __future__ import annotations

import runpy
import time
from pathlib import Path

import numpy as np
import pytest
import skops.io
import torch
from safetensors.torch import save_file
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

differences = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "same_bits.py"))["differences"]

TREES = "teacher/member-0/estimator.skops"
BOOSTING = "teacher/member-1/estimator.skops"
WEIGHTS = "student/seed-0/model.safetensors"


def write(folder: Path, *, seed: int = 0, weight: float = 1.0) -> Path:
    """A run folder with two estimators and a network."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 3)), random.integers(0, 2, 60)
    for name in (TREES, BOOSTING, WEIGHTS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    skops.io.dump(RandomForestClassifier(4, random_state=seed).fit(x, y), folder / TREES)
    skops.io.dump(HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(x, y), folder / BOOSTING)
    save_file({"weight": torch.tensor([0.5, weight])}, folder / WEIGHTS)
    (folder / "student" / "seed-0" / "history.jsonl").write_text(f'{{"seconds": {time.perf_counter()}}}\n')
    return folder


def test_the_same_models_written_twice_are_the_same(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    assert (one / TREES).read_bytes() != (two / TREES).read_bytes(), "skops files name objects by address"
    assert differences(one, two) == []


def test_the_last_bit_of_a_weight_another_forest_and_a_missing_file_differ(tmp_path: Path) -> None:
    one = write(tmp_path / "one")
    last_bit = float(np.nextafter(np.float32(1), np.float32(2)))
    assert differences(one, write(tmp_path / "bit", weight=last_bit)) == [WEIGHTS]
    assert differences(one, write(tmp_path / "forest", seed=1)) == [TREES]
    less = write(tmp_path / "less")
    (less / BOOSTING).unlink()
    assert differences(one, less) == differences(less, one) == [BOOSTING]


def test_folders_without_models_are_not_called_the_same(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model"):
        differences(tmp_path / "a", tmp_path / "b")
