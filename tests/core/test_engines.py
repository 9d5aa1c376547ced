"""Engines: workers that open once and make one task after the other, whatever happens to them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.engines import Engine, Event, make_engine
from stillhouse.errors import OptionError

WORKER = """
import os, signal, time
from pathlib import Path

from stillhouse.errors import DataError


def opened(setup, tell):
    with Path(setup["log"]).open("a") as file:
        file.write("opened\\n")

    def make(task):
        kind, value = task
        if kind == "tell":
            for number in range(value):
                tell("number", number)
        if kind == "environment":
            return os.environ.get(value)
        if kind == "fail":
            raise DataError("bad rows", where="there", fix="better ones")
        if kind == "wait":
            time.sleep(value)
        if kind == "die" or (kind == "die once" and not Path(setup["log"] + ".died").exists()):
            Path(setup["log"] + ".died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value
    return make


def closed(setup, tell):
    raise DataError("nothing to open", where="here", fix="make it")
"""


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "ray":
        pytest.importorskip("ray")
    (tmp_path / "worker_of_tests.py").write_text(WORKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield request.param
    assert not multiprocessing.active_children()


def all_of(engine: Engine, tasks: list[tuple[str, object]], *, limit: float | None = None) -> list[Event]:
    for number, task in enumerate(tasks):
        engine.submit(number, task, limit=limit)
    found: list[Event] = []
    deadline = time.monotonic() + 900
    while len([event for event in found if event.kind != "told"]) < len(tasks):
        assert time.monotonic() < deadline
        found += engine.events(1.0)
    return found


def test_tasks_are_made_told_of_retried_lost_and_ended(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    engine = make_engine(name, 2, "worker_of_tests:opened", {"log": str(log)}, retries=1)
    try:
        found = all_of(
            engine, [("tell", 3), ("fail", 0), ("die once", "again"), ("die", 0), *[("", at) for at in "abcd"]]
        )
        ends = {event.number: event for event in found if event.kind != "told"}
        assert [ends[at].kind for at in range(8)] == ["done", "failed", "done", "lost", *["done"] * 4]
        assert [ends[at].value for at in (0, 2, 4, 5, 6, 7)] == [3, "again", *"abcd"]
        assert (ends[1].value.what, ends[1].value.fix) == ("bad rows", "better ones")
        assert [event.value for event in found if event.kind == "told"] == [("number", at) for at in range(3)]
        dead = 3
        assert log.read_text().count("opened") <= 2 + dead, "once in each worker"
        late = all_of(engine, [("wait", 600), ("", 1), ("", 2)], limit=10.0)
        assert sorted(event.kind for event in late) == ["done", "done", "late"]
    finally:
        engine.close()


def test_what_keeps_a_worker_from_opening_is_that_of_its_task(name: str) -> None:
    engine = make_engine(name, 1, "worker_of_tests:closed", {})
    try:
        (event,) = all_of(engine, [("", 1)])
        assert event.kind == "failed"
        assert event.value.what == "nothing to open"
    finally:
        engine.close()


def test_an_engine_that_does_not_exist_is_named() -> None:
    with pytest.raises(OptionError, match="'slurm' is not an engine"):
        make_engine("slurm", 1, "worker_of_tests:opened", {})


def test_workers_have_the_environment_of_when_they_start(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of the process that they are forked from, which outlives an engine."""
    for value in ("first", "second"):
        monkeypatch.setenv("STILLHOUSE_TRIED", value)
        engine = make_engine(name, 1, "worker_of_tests:opened", {"log": str(tmp_path / "log")})
        try:
            (event,) = all_of(engine, [("environment", "STILLHOUSE_TRIED")])
        finally:
            engine.close()
        assert event.value == value


def test_a_file_of_the_current_folder_takes_the_place_of_no_package(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('this is not numpy')")
    package = tmp_path / "package"
    package.mkdir()
    (package / "worker_of_tests.py").write_text(WORKER)
    (package / "script.py").write_text(
        "from stillhouse.engines import make_engine\n"
        "engine = make_engine('local', 1, 'worker_of_tests:opened', {'log': 'log'})\n"
        "engine.submit(0, ('environment', 'PYTHONSAFEPATH'))\n"
        "print([(event.kind, event.value) for event in engine.events()])\n"
        "engine.close()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(package / "script.py")]  # what the current folder holds is not on its path
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.stdout.strip(), done.stderr) == ("[('done', None)]", "")
