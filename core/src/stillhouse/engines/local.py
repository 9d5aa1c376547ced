"""Workers that are processes of this machine, one thread each."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from stillhouse.engines.base import Desk, Engine, Event

PRELOADED = ["stillhouse.pipeline.runner"]
"""What one process imports for all workers, which are forked from it: that takes as long as many a training does."""


@dataclass
class _Task:
    number: int
    task: Any
    limit: float | None
    attempts: int = 0


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    busy: _Task | None = None
    deadline: float | None = None
    opened: bool = False

    def start_clock(self) -> None:
        """The limit of its task begins."""
        limit = None if self.busy is None else self.busy.limit
        self.deadline = time.monotonic() + limit if self.opened and limit is not None else None


class LocalEngine(Engine):
    """See `stillhouse.engines.base.make_engine`."""

    def __init__(self, jobs: int, opener: str, setup: Mapping[str, Any], *, retries: int = 0) -> None:
        self.jobs, self._retries = jobs, retries
        self._given = (opener, dict(setup))
        # A component that the script itself defines is named `__main__:Tiny`.
        self._needs_script = "__main__:" in str(self._given)
        self._waiting: deque[_Task] = deque()
        self._workers = [self._start() for _ in range(jobs)]

    def _start(self) -> _Worker:
        if sys.platform == "linux":
            method = get_context("forkserver")
            method.set_forkserver_preload(PRELOADED)
        else:  # a process that has imported much may not be forked there
            method = get_context("spawn")
        here, there = method.Pipe()
        with _default("OMP_NUM_THREADS", "1"):
            environment = dict(os.environ)
            # What is imported for the workers is not looked for among the files of the current folder.
            with _default("PYTHONSAFEPATH", "1"), nullcontext() if self._needs_script else _without_script():
                process = method.Process(target=_work, args=(there, environment, *self._given), daemon=True)
                process.start()
        there.close()
        return _Worker(process, here)

    def submit(self, number: int, task: Any, *, limit: float | None = None) -> None:
        """See `Engine.submit`."""
        self._waiting.append(_Task(number, task, limit))
        self._give()

    def _give(self) -> None:
        for at, worker in enumerate(self._workers):
            if not self._waiting:
                return
            if worker.busy is None:
                try:
                    worker.pipe.send(self._waiting[0].task)
                except OSError:  # it was ended while it had nothing to do
                    self._replace(at).pipe.send(self._waiting[0].task)
                worker = self._workers[at]
                worker.busy = self._waiting.popleft()
                worker.start_clock()

    def events(self, timeout: float | None = None) -> list[Event]:
        """See `Engine.events`."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            found = self._ended_late()
            busy: dict[Any, int] = {
                worker.pipe: at for at, worker in enumerate(self._workers) if worker.busy is not None
            }
            if found or not busy:
                return found
            times = [worker.deadline for worker in self._workers if worker.deadline is not None]
            times += [] if until is None else [until]
            wait = None if not times else max(0.0, min(times) - time.monotonic())
            for pipe in connection.wait(list(busy), wait):
                found += self._heard(busy[pipe])
            self._give()
            if found or (until is not None and time.monotonic() >= until):
                return found

    def _heard(self, at: int) -> list[Event]:
        worker = self._workers[at]
        task = worker.busy
        assert task is not None
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(at)
            task.attempts += 1
            if task.attempts > self._retries:
                return [Event(task.number, "lost", worker=at)]
            self._waiting.appendleft(task)
            return []
        if kind == "opened":
            worker.opened = True
            worker.start_clock()
            return []
        if kind != "told":
            worker.busy = worker.deadline = None
        return [Event(task.number, kind, value, at)]

    def _ended_late(self) -> list[Event]:
        found = []
        for at, worker in enumerate(self._workers):
            if worker.busy is not None and worker.deadline is not None and time.monotonic() >= worker.deadline:
                found.append(Event(worker.busy.number, "late", worker=at))
                self._replace(at)
        self._give()
        return found

    def _replace(self, at: int) -> _Worker:
        _end(self._workers[at])
        self._workers[at] = self._start()
        return self._workers[at]

    def close(self) -> None:
        """See `Engine.close`."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            _end(worker)
        self._workers = []
        self._waiting.clear()


def _end(worker: _Worker) -> None:
    worker.process.terminate()
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.pipe.close()


@contextmanager
def _default(name: str, value: str) -> Iterator[None]:
    """Processes that start inside have a variable of the environment, unless it is set."""
    given = name in os.environ
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if not given:
            del os.environ[name]


@contextmanager
def _without_script() -> Iterator[None]:
    """Processes that start inside do not import the script that began them, since a script without
    ``if __name__ == "__main__"`` would begin again in each of them."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _work(pipe: Connection, environment: Mapping[str, str], opener: str, setup: Mapping[str, Any]) -> None:
    """Make what is asked for, until the pipe is closed."""
    # The process that this one was forked from has the environment of the first worker's start.
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    desk = Desk(opener, setup, lambda *given: pipe.send(("told", given)), lambda: pipe.send(("opened", None)))
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(desk.make(task))


def _end_with_parent() -> None:
    """Another run may begin in the folder as soon as the process that began this one is gone, however it went."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
