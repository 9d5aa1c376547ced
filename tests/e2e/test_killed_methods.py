"""A run of any method that is killed in one of its phases goes on with the same command and ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SERVER = """
import json, os, signal, sys, traceback
import accelerate, sklearn.ensemble, torch
import stillhouse
import stillhouse.training.loop as loop
from stillhouse.progress import Silent
import stillhouse.pipeline.runner

class KillIn(Silent):
    def __init__(self, phase):
        stage, _, self.phase = phase.rpartition(":")
        self.role = stage or "student"

    def epoch(self, record):
        if record["stage"] == self.role and record.get("phase", "") == self.phase and record["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)

genuine, begun = loop.train_epoch, []

def kill_at(last):
    def train_epoch(*args, **given):
        begun.append(1)
        if len(begun) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return genuine(*args, **given)
    return train_epoch

def run(asked):
    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = 0.0
    loop.train_epoch = kill_at(asked["epochs"])
    reporter = KillIn(asked["phase"])
    folder, changes = asked["folder"], asked["changes"]
    stillhouse.run("core/quickstart", out=folder, overrides=changes, stop_after="evaluate", reporter=reporter)

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ["STILLHOUSE_CACHE"] = asked["cache"]
        said = os.open(asked["said"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        try:
            run(asked)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Makes a process for each run that it is asked for, in which everything is imported. A run kills itself at the second
epoch of a phase, or when so many epochs of any fit have begun."""

NEVER = "no phase of this name"

COMMON = [
    "dataset.rows=400",
    "dataset.unlabelled=200",
    "train.teacher.epochs=2",
    "train.student.epochs=6",
    "evaluate.latency_samples=20",
    "seeds=[0]",
]
HINTS = "objectives.soft=[{use: core/hints, student: backbone.0, teacher: backbone.0}, soft]"
SEVERAL = "teacher={members: [{use: core/mlp, hidden: [16]}, {use: core/random-forest, n_estimators: 5}]}"

METHODS: dict[str, tuple[list[str], list[str]]] = {
    "offline": ([], [""]),
    "born-again": (
        ["method={use: core/born-again, ensemble: true, keep: best}"],
        ["generation-1", "generation-2", "generation-3"],
    ),
    "mutual": (["method={use: core/mutual, others: [core/linear]}"], [""]),
    "staged": (["method=core/staged", HINTS], ["stage-1", "stage-2"]),
    "assistant": (
        ["method={use: core/assistant, assistants: [{use: core/mlp, hidden: [32]}]}"],
        ["assistant-1", "student"],
    ),
    "adversarial": (["method={use: core/adversarial, epsilon: 0.2, steps: 2}"], [""]),
    "difficulty": (["method=core/adaptive"], [""]),
    "noisy-teachers": (["method=core/noisy-teachers"], ["teacher-1", "teacher-2", "teacher-3", "student"]),
    "confident-teachers": (["method=core/confident-teachers", SEVERAL], [""]),
    "spot-adaptive": (["method=core/spot-adaptive", HINTS], [""]),
    "condensed": (["method={use: core/condensed, stages: 3}"], ["stage-1", "stage-2", "stage-3"]),
    "denoised": (["method=core/denoised", HINTS], [""]),
    "self-supervised": (["method=core/self-supervised"], ["pretext", "student"]),
    "missing-modality": (["method={use: core/missing-modality, student: backbone.0, teacher: backbone.0}"], [""]),
    "stream": (
        [
            "method={use: core/stream, chunks: 5, delay: 1, epochs: 2, replay: 20, last_weight: 0.5, teacher: refit, "
            "refit_every: 1}",
            "dataset.times=true",
        ],
        ["baseline:chunk-4", "teacher:", "warm", "chunk-4", "chunk-5"],
    ),
    "federated": (
        ["method={use: core/federated, clients: 3, dirichlet: 2.0, rounds: 3, local_epochs: 2}"],
        ["baseline:pooled", ""],
    ),
    "annealing": (["method={use: core/adaptive, mode: annealing}"], ["annealing", "labels"]),
}
"""By name: the changes that choose the method, and its phases, in each of which it is killed once (``stage:phase``
where the stage is not the student's)."""


@dataclass
class Server:
    """Runs in processes of their own."""

    process: subprocess.Popen[str]

    def run(self, folder: Path, changes: list[str], *, phase: str = NEVER, epochs: int = 0) -> int:
        """Run until it is done, or until the run kills itself; the exit status."""
        said = folder.parent / f"said-{folder.name}"
        cache = str(folder.parent / f"cache-{folder.name}")
        asked = {"folder": str(folder), "changes": [*COMMON, *changes], "phase": phase, "epochs": epochs}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({**asked, "cache": cache, "said": str(said)}) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        assert status in (0, -signal.SIGKILL), said.read_text()
        return status


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    command = [sys.executable, "-c", SERVER]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()


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
def test_a_method_that_was_killed_ends_with_the_same_bits(name: str, tmp_path: Path, server: Server) -> None:
    changes, phases = METHODS[name]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert server.run(whole, changes) == 0
    for phase in phases:
        assert server.run(killed, changes, phase=phase) == -signal.SIGKILL
        assert not (killed / "student" / "seed-0" / "done.json").exists()
    assert server.run(killed, changes) == 0
    assert left_by(killed) == left_by(whole)


@pytest.mark.slow
def test_rounds_that_were_killed_in_fits_of_clients_and_server_end_with_the_same_bits(
    tmp_path: Path, server: Server
) -> None:
    """Fits of a client have two epochs, those of the server two: runs die in the middle of one, or between two."""
    method = "method={use: core/federated, clients: 3, dirichlet: 2.0, rounds: 3, local_epochs: 2, server_epochs: 2}"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert server.run(whole, [method]) == 0
    for epochs in (30, 4, 6, 5):
        assert server.run(killed, [method], epochs=epochs) == -signal.SIGKILL
    assert (killed / "student" / "seed-0" / "phases").exists()
    assert server.run(killed, [method]) == 0
    assert left_by(killed) == left_by(whole)
