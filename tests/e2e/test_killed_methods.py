"""A run of any method that is killed in one of its phases goes on with the same command and ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import sys
import torch
import stillhouse
import stillhouse.training.loop as loop
loop.CHECKPOINT_SECONDS = 0.0
torch.set_num_threads(1)
stillhouse.run("core/quickstart", out=sys.argv[1], overrides=sys.argv[2:], stop_after="evaluate")
"""

COMMON = [
    "dataset.rows=400",
    "dataset.unlabelled=200",
    "train.teacher.epochs=2",
    "train.student.epochs=8",
    "evaluate.latency_samples=20",
    "seeds=[0]",
]
METHODS = {
    "adversarial": (["method={use: core/adversarial, epsilon: 0.2, steps: 2}"], "."),
    "difficulty": (["method=core/adaptive"], "."),
    "annealing": (["method={use: core/adaptive, mode: annealing}"], "phases/labels"),
}
"""By name: the changes that choose the method, and the folder of the phase in which it is killed."""


def start(folder: Path, cache: Path, changes: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "STILLHOUSE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder), *COMMON, *changes]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()


def left_by(folder: Path) -> dict[str, Any]:
    """Weights of all models, epochs without their time, and the facts of the method."""
    student = folder / "student" / "seed-0"
    lines = [json.loads(line) for line in (student / "history.jsonl").read_text().splitlines()]
    return {
        "weights": {str(path.relative_to(student)): path.read_bytes() for path in student.rglob("*.safetensors")},
        "epochs": [{name: value for name, value in line.items() if name != "seconds"} for line in lines],
        "facts": json.loads((folder / "summary.json").read_text())["method_facts"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_was_killed_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    changes, phase = METHODS[name]
    finish(start(tmp_path / "whole", tmp_path / "cache-1", changes))
    student = tmp_path / "killed" / "student" / "seed-0"
    process = start(tmp_path / "killed", tmp_path / "cache-2", changes)
    deadline = time.monotonic() + 240
    while not (student / phase / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (student / "done.json").exists()
    finish(start(tmp_path / "killed", tmp_path / "cache-2", changes))
    assert left_by(tmp_path / "killed") == left_by(tmp_path / "whole")
