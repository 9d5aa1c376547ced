"""Training in two processes gives what training in one gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

RECIPE = {
    "name": "processes",
    "head": "core/multiclass",
    "dataset": {"use": "core/synthetic", "rows": 320, "unlabelled": 96},
    "teacher": {"use": "core/mlp", "hidden": [16]},
    "student": {"use": "core/mlp", "hidden": [8]},
    "objectives": {
        "alpha": 0.5,
        "soft": ["soft", {"use": "core/hints", "student": "TAP", "teacher": "TAP", "weight": 0.1}],
    },
    "train": {"teacher": {"epochs": 2, "batch_size": 32}, "student": {"epochs": 3, "batch_size": 32, "lr": 0.01}},
    "evaluate": {"latency_samples": 20},
    "seeds": [0],
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(folder: Path, recipe: Path, *, processes: int) -> subprocess.Popen[str]:
    launch = [sys.executable]
    if processes > 1:  # `accelerate launch --cpu` starts one process, whatever number it is told
        launch += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]
    command = [*launch, "-m", "stillhouse", "run", str(recipe), "--out", str(folder), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STILLHOUSE_CACHE": str(folder.parent / f"cache-{processes}")}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def train(folder: Path, recipe: Path, *, processes: int) -> None:
    process = start(folder, recipe, processes=processes)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert json.loads((folder / "manifest.json").read_text())["processes"] == processes


@pytest.mark.slow
def test_two_processes_train_the_same_models_adapters_and_unlabelled_rows_included(tmp_path: Path) -> None:
    import stillhouse

    shown = stillhouse.run({**RECIPE, "objectives": {"soft": ["soft"]}}, out=tmp_path / "names", stop_after="teacher")
    first = next(name for name in load_file(shown.folder / "teacher" / "member-0" / "model.safetensors"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE).replace("TAP", first.rpartition(".")[0]))
    train(tmp_path / "one", recipe, processes=1)
    train(tmp_path / "two", recipe, processes=2)
    for model in ("teacher/member-0", "baseline/seed-0", "student/seed-0"):
        one, two = (load_file(tmp_path / run / model / "model.safetensors") for run in ("one", "two"))
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
    summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in ("one", "two")]
    assert summaries[0]["dataset"] == summaries[1]["dataset"]
    assert summaries[0]["student"]["mean"] == pytest.approx(summaries[1]["student"]["mean"], abs=0.05)
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 + 3 + 3, "one process writes"
    # With dropout the teacher of two would be another: it was handed to runs of one process.
    assert len(list((tmp_path / "cache-1" / "teachers").iterdir())) == 1
    assert not (tmp_path / "cache-2" / "teachers").exists()


@pytest.mark.slow
def test_two_processes_that_are_killed_go_on_and_end_with_the_same_bits(tmp_path: Path) -> None:
    long = {"epochs": 400, "batch_size": 32, "lr": 0.001}
    values = {**RECIPE, "objectives": {"soft": ["soft"]}, "train": {**RECIPE["train"], "student": long}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    train(tmp_path / "whole", recipe, processes=2)
    process = start(tmp_path / "killed", recipe, processes=2)
    checkpoint, deadline = tmp_path / "killed" / "student" / "seed-0" / "checkpoint.pt", time.monotonic() + 240
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for each in (*psutil.Process(process.pid).children(recursive=True), process):  # workers have a session of their own
        each.kill()
    process.communicate()
    assert not (checkpoint.parent / "done.json").exists()
    train(tmp_path / "killed", recipe, processes=2)
    for model in ("teacher/member-0", "baseline/seed-0", "student/seed-0"):
        whole, killed = (load_file(tmp_path / run / model / "model.safetensors") for run in ("whole", "killed"))
        assert all(torch.equal(whole[name], killed[name]) for name in whole)


RELATIONAL = ("core/similarity-preserving", "core/relational", "core/pkt", "core/supervised-contrastive")


@pytest.mark.slow
def test_losses_between_rows_are_those_of_the_whole_batch_where_rows_are_gathered(tmp_path: Path) -> None:
    taps = {"student": "backbone.0", "teacher": "backbone.0"}
    found = {}
    for gather in (True, False):
        # The last batch is smaller, and its rows are not the same number in both processes.
        values = {
            **RECIPE,
            "dataset": {"use": "core/synthetic", "rows": 423, "unlabelled": 96},
            "teacher": {"use": "core/mlp", "hidden": [8]},
            "objectives": {"alpha": 0.1, "soft": [{"use": use, **taps, "gather": gather} for use in RELATIONAL]},
        }
        recipe = tmp_path / f"gather-{gather}.yaml"
        recipe.write_text(yaml.safe_dump(values))
        folder = tmp_path / f"two-{gather}"
        train(folder, recipe, processes=2)
        found[gather] = load_file(folder / "student" / "seed-0" / "model.safetensors")
        if gather:
            train(tmp_path / "one", recipe, processes=1)
    one = load_file(tmp_path / "one" / "student" / "seed-0" / "model.safetensors")
    for name in one:
        torch.testing.assert_close(found[True][name], one[name], rtol=1e-3, atol=1e-4)
    apart = max(float((found[False][name] - one[name]).abs().max()) for name in one)
    assert apart > 1e-2, "without, each process compares its own rows only"
