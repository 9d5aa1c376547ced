"""Runs of methods on little data, through the public interface, and the check that they resume to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.pipeline import RunResult
from stillhouse.plugins.manager import Manager
from stillhouse.progress import Reporter, Silent
from stillhouse.recipe.text import to_yaml

SMALL = (
    "dataset.rows=240",
    "dataset.unlabelled=60",
    "teacher.hidden=[16]",
    "student.hidden=[8]",
    "train.teacher.epochs=1",
    "train.student.epochs=3",
    "train.student.unlabelled_ratio=1",
    "evaluate.latency_samples=10",
    "evaluate.throughput_batch=32",
    "seeds=[0]",
)

Distil = Callable[..., RunResult]


class Interrupted(Exception):
    """The run is stopped as a kill would stop it, only politely."""


class StopIn(Silent):
    """Interrupts the student at the second epoch of a phase."""

    def __init__(self, phase: str) -> None:
        self.phase = phase

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `Silent`."""
        if record["stage"] == "student" and record.get("phase", "") == self.phase and record["epoch"] == 1:
            raise Interrupted


@pytest.fixture
def distil(tmp_path: Path) -> Distil:
    """Runs core/quickstart, made small, by a method; up to the summary."""

    def run(
        method: Any,
        *changes: str,
        out: str = "run",
        reporter: Reporter | None = None,
        manager: Manager | None = None,
    ) -> RunResult:
        written = to_yaml({"method": method}).removeprefix("method:")
        return stillhouse.run(
            "core/quickstart",
            out=tmp_path / out,
            overrides=[*SMALL, f"method={written}", *changes],
            reporter=reporter,
            stop_after="evaluate",
            manager=manager,
        )

    return run


@pytest.fixture
def assert_resumes(distil: Distil, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunResult]:
    """Runs a method whole, and again with an interruption in every phase; both must leave the same bits."""

    def check(method: Any, phases: Iterable[str], *changes: str) -> RunResult:
        monkeypatch.setattr("stillhouse.training.loop.CHECKPOINT_SECONDS", 0.0)
        whole = distil(method, *changes, out="whole")
        for phase in phases:
            with pytest.raises(Interrupted):
                distil(method, *changes, out="stopped", reporter=StopIn(phase))
        stopped = distil(method, *changes, out="stopped")
        one, two = (result.folder / "student" / "seed-0" for result in (whole, stopped))
        files = {path.relative_to(one) for path in one.rglob("*.safetensors")}
        assert files == {path.relative_to(two) for path in two.rglob("*.safetensors")}
        for path in files:
            assert (one / path).read_bytes() == (two / path).read_bytes(), path
        assert epochs(one) == epochs(two)
        assert {record.get("phase", "") for record in epochs(one)} == set(phases)
        assert whole.summary["method_facts"] == stopped.summary["method_facts"]
        assert not (two / "phases").exists()
        return whole

    return check


def epochs(folder: Path) -> list[dict[str, Any]]:
    """The records of a student's epochs, without the time that they took."""
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]
