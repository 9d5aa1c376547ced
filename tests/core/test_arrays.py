"""`core/arrays`: rows in NumPy files train and label like rows in memory, without taking it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import stillhouse
from stillhouse.data.arrays import ArraysSplit
from stillhouse.errors import DataError
from stillhouse.types import TensorSplit


def write(folder: Path, rows: int, width: int, *, seed: int, name: str = "x") -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    inputs = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(rows, width))
    target = np.empty(rows, dtype=np.int64)
    for start in range(0, rows, 4096):
        part = random.standard_normal((min(4096, rows - start), width), dtype=np.float32)
        inputs[start : start + len(part)], target[start : start + len(part)] = part, part[:, :4].argmax(axis=1)
    inputs.flush()
    np.save(folder / "target.npy", target)


def recipe(folder: Path) -> dict[str, Any]:
    return {
        "name": "large",
        "head": "core/multiclass",
        "dataset": {"use": "core/arrays", "path": str(folder)},
        "teacher": {"use": "core/mlp", "hidden": [16]},
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {"teacher": {"epochs": 1, "batch_size": 512}, "student": {"epochs": 1, "batch_size": 512}},
        "evaluate": {"latency_samples": 10},
        "seeds": [0],
    }


def test_rows_are_those_of_the_files_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "train", 50, 5, seed=0)
    split = ArraysSplit(tmp_path / "train", first=7)
    files = {name: torch.from_numpy(np.load(tmp_path / "train" / f"{name}.npy")) for name in ("x", "target")}
    memory = TensorSplit({**files, "index": torch.arange(7, 57)})
    assert len(split) == 50
    assert torch.equal(split.index(), memory.index())
    for positions in ([3, 49, 0], range(10, 20), range(50), range(9, 3, -2)):
        one, two = split.batch(positions), memory.batch(list(positions))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(value, memory.row(4)[name]) for name, value in split.row(4).items())
    assert split.columns(["target"]).keys() == {"target", "index"}
    before = split.fingerprint()
    np.save(tmp_path / "train" / "target.npy", np.load(tmp_path / "train" / "target.npy")[::-1])
    assert ArraysSplit(tmp_path / "train", first=7).fingerprint() != before


def test_what_is_wrong_with_the_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.npy files"):
        ArraysSplit(tmp_path / "none")
    for name in ("train", "val", "test"):
        write(tmp_path / name, 30, 5, seed=1, name="y" if name == "val" else "x")
    with pytest.raises(DataError, match="'x' of 'val' is missing"):
        stillhouse.run(recipe(tmp_path), out=tmp_path / "run")
    (tmp_path / "train" / "x.npy").write_bytes(b"none")
    with pytest.raises(DataError, match="not an array of numbers"):
        ArraysSplit(tmp_path / "train")
    np.save(tmp_path / "train" / "x.npy", np.zeros((3, 5), dtype=np.float32))
    with pytest.raises(DataError, match="differ in length"):
        ArraysSplit(tmp_path / "train")


CHILD = """
import json, resource, sys
import torch
from stillhouse.pipeline import opening, run, signal, student
from stillhouse.pipeline.label import label
torch.set_num_threads(1)
small, large, out = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
label(small, out=out + "-small", shard_rows=8192); run(small, out=out + "-small", stop_after="student")
before = peak()
found = label(large, out=out, shard_rows=8192); run(large, out=out, stop_after="student")
print(peak() - before, found.shards)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux counts it")
def test_rows_larger_than_what_the_process_takes_are_labelled_and_learned_from(tmp_path: Path) -> None:
    import json

    for size, rows in (("small", 2000), ("large", 100_000)):
        for name in ("train", "val", "test"):
            write(tmp_path / size / name, rows if name == "train" else 500, 1000, seed=len(name))
    given = [json.dumps(recipe(tmp_path / size)) for size in ("small", "large")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STILLHOUSE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", CHILD, *given, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    more, shards = map(int, done.stdout.split()[-2:])
    assert shards == 13
    assert more < 120, "MB more than for 2,000 rows; the rows have 400 MB"
    weights = load_file(tmp_path / "run" / "student" / "seed-0" / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())
