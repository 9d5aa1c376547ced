"""Workers that are Ray actors: on the cluster that ``RAY_ADDRESS`` names, else on one that Ray starts here."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.engines.base import Desk, Engine, Event
from stillhouse.errors import StillhouseError, require_package

POLL = 0.2
"""Seconds between two looks at what workers have told."""


@dataclass
class _Task:
    worker: int
    number: int
    limit: float | None
    deadline: float | None = None

    def start_clock(self) -> None:
        """Its limit begins."""
        self.deadline = None if self.limit is None else time.monotonic() + self.limit


class RayEngine(Engine):
    """See `stillhouse.engines.base.make_engine`. A task whose actor dies is made again by Ray, in the actor that it
    starts in its place; tasks that are finished are not.

    Every worker asks for one CPU and, where the cluster has GPUs, for its share of them. They read and write the run
    folder, which therefore must be at the same path for all of them.
    """

    def __init__(self, jobs: int, opener: str, setup: Mapping[str, Any], *, retries: int = 0) -> None:
        ray = _ray()
        self._ray, self._own = ray, not ray.is_initialized()
        self._actors: list[Any] = []
        if self._own:
            _init(ray, jobs)
        try:
            there = ray.cluster_resources()
            self.jobs = max(1, min(jobs, int(there.get("CPU", jobs))))
            self._told: Any = ray.remote(num_cpus=0)(_Told).remote()
            share = min(1.0, there.get("GPU", 0.0) / self.jobs)
            options = {"num_cpus": 1, "num_gpus": share, "max_restarts": -1, "max_task_retries": retries}
            made: Any = ray.remote(**options)(_Actor)
            self._make_actor: Callable[[], Any] = lambda: made.remote(opener, dict(setup), self._told)
            self._actors = [self._make_actor() for _ in range(self.jobs)]
        except BaseException:
            self.close()
            raise
        self._waiting: deque[tuple[int, Any, float | None]] = deque()
        self._busy: dict[Any, _Task] = {}
        """By reference to its result."""
        self._opened: set[int] = set()

    def submit(self, number: int, task: Any, *, limit: float | None = None) -> None:
        """See `Engine.submit`."""
        self._waiting.append((number, task, limit))
        self._give()

    def _give(self) -> None:
        taken = {task.worker for task in self._busy.values()}
        for at in range(self.jobs):
            if at not in taken and self._waiting:
                number, task, limit = self._waiting.popleft()
                given = self._busy[self._actors[at].make.remote(number, task)] = _Task(at, number, limit)
                if at in self._opened:
                    given.start_clock()

    def events(self, timeout: float | None = None) -> list[Event]:
        """See `Engine.events`."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            if not self._busy:
                return []
            ready, _ = self._ray.wait(list(self._busy), num_returns=len(self._busy), timeout=POLL)
            found = self._heard()  # before the end of the tasks that told it
            found += [self._ended(each) for each in ready] + self._ended_late()
            self._give()
            if found or (until is not None and time.monotonic() >= until):
                return found

    def _heard(self) -> list[Event]:
        tasks, found = {task.number: task for task in self._busy.values()}, []
        for number, value in self._ray.get(self._told.take.remote()):
            if number not in tasks:
                continue  # it was ended
            if value is None:
                self._opened.add(tasks[number].worker)
                tasks[number].start_clock()
            else:
                found.append(Event(number, "told", value, tasks[number].worker))
        return found

    def _ended(self, reference: Any) -> Event:
        task = self._busy.pop(reference)
        worker, number = task.worker, task.number
        try:
            kind, value = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            return Event(number, "lost", worker=worker)
        except self._ray.exceptions.RayError as error:
            problem = StillhouseError(f"Ray could not make it: {error}", where="--engine ray", fix="look at Ray's logs")
            return Event(number, "failed", problem, worker)
        return Event(number, kind, value, worker)

    def _ended_late(self) -> list[Event]:
        found, now = [], time.monotonic()
        for reference, task in list(self._busy.items()):
            if task.deadline is not None and now >= task.deadline:
                del self._busy[reference]
                self._ray.kill(self._actors[task.worker])
                self._actors[task.worker] = self._make_actor()
                self._opened.discard(task.worker)
                found.append(Event(task.number, "late", worker=task.worker))
        return found

    def close(self) -> None:
        """See `Engine.close`; a cluster that was there before stays."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._own and self._ray.is_initialized():
            self._ray.shutdown()


class _Told:
    """What workers have told, until it is taken."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def put(self, number: int, value: Any) -> None:
        """Of a task."""
        self._kept.append((number, value))

    def take(self) -> list[Any]:
        """All of it, in order."""
        taken, self._kept = self._kept, []
        return taken


class _Actor:
    """A worker."""

    def __init__(self, opener: str, setup: Mapping[str, Any], told: Any) -> None:
        import ray

        self._number = 0
        # It waits until that has arrived: what a task tells is there before its end is.
        self._desk = Desk(
            opener,
            setup,
            lambda *given: ray.get(told.put.remote(self._number, given)),
            lambda: ray.get(told.put.remote(self._number, None)),
        )

    def make(self, number: int, task: Any) -> tuple[str, Any]:
        """How a task ended, and its result or the exception."""
        self._number = number
        return self._desk.make(task)


def _ray() -> Any:
    require_package(
        "ray",
        "the engine 'ray' needs the package 'ray'",
        where="--engine ray",
        fix="pip install 'stillhouse[ray]'",
    )
    import ray

    return ray


def _init(ray: Any, jobs: int) -> None:
    """Connect to the cluster that the environment names, or start one here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the processes of the other engine
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
        else:
            ray.init(address="local", num_cpus=jobs, include_dashboard=False, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise StillhouseError(
            f"Ray does not start: {error}",
            where="--engine ray"
            + (f", RAY_ADDRESS={os.environ['RAY_ADDRESS']}" if "RAY_ADDRESS" in os.environ else ""),
            fix="start the cluster with `ray start --head`, or unset RAY_ADDRESS for one on this machine",
        ) from error
