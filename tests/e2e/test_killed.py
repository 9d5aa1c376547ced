"""A run that is killed goes on with the same command and ends with the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
changes = ["seeds=[0, 1]", "train.teacher.epochs=4", "train.student.epochs=6", "evaluate.latency_samples=20"]
stillhouse.run("industrial/rul-demo", out=sys.argv[1], overrides=changes)
"""


def start(folder: Path, cache: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "STILLHOUSE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def numbers(folder: Path) -> Any:
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "metrics": [summary[role]["metrics"] for role in ("teacher", "baseline", "student")],
        "per_seed": [summary[role]["per_seed"] for role in ("baseline", "student")],
        "gain": [summary["verdict"][name] for name in ("gain", "gain_ci95", "retention", "compression", "helped")],
        "fingerprint": summary["dataset"]["fingerprint"],
    }


def losses(folder: Path) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.slow
def test_killed_in_teacher_student_and_report_and_started_again(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole, tmp_path / "cache-1"))
    cache = tmp_path / "cache-2"
    kill_when(start(killed, cache), lambda: bool(list(killed.glob("teacher/*/checkpoint.pt"))))
    assert not (killed / "teacher" / "done.json").exists()
    kill_when(start(killed, cache), lambda: (killed / "student" / "seed-1" / "checkpoint.pt").exists())
    assert not (killed / "student" / "seed-1" / "done.json").exists()
    kill_when(start(killed, cache), lambda: (killed / "evaluate" / "done.json").exists())
    assert not (killed / "report" / "done.json").exists()
    finish(start(killed, cache))
    assert numbers(killed) == numbers(whole)
    assert losses(killed) == losses(whole)
    assert (killed / "report.html").is_file()
    left = [path for path in killed.rglob("*") if path.name.startswith(".") or path.name == "checkpoint.pt"]
    assert not left, "nothing of the killed attempts is left"


@pytest.mark.slow
def test_two_processes_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    first = start(tmp_path / "run", tmp_path / "cache")
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "data" / "done.json").exists():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        second = start(tmp_path / "run", tmp_path / "cache")
        output, _ = second.communicate(timeout=120)
        assert second.returncode != 0
        assert b"another process is running" in output
    finally:
        first.kill()
        first.communicate()
