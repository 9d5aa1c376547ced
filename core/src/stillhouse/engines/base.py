"""What an engine does: workers that open something once, and then make one task after the other."""

from __future__ import annotations

import pickle
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from stillhouse.errors import OptionError, nearest

ENGINES = ("local", "ray")
"""Names of engines: processes of this machine, and a Ray cluster, which may be one that Ray starts on it."""

Tell = Callable[[str, Any], None]
"""How a worker tells what happens while it makes a task: a kind and a value, both as they like."""
Make = Callable[[Any], Any]
"""Makes a task; its result goes back as it is."""
Open = Callable[[Mapping[str, Any], Tell], Make]
"""Called once in each worker, before its first task."""


@dataclass(frozen=True)
class Event:
    """What happened to a task.

    Attributes:
        number: of the task, as it was submitted.
        kind: ``"told"`` (value: what `Tell` was given), ``"done"`` (value: its result), ``"failed"`` (value: the
            exception), ``"lost"`` (its worker was ended from outside, as often as it may be), or ``"late"``.
        value: see ``kind``.
        worker: which one, from 0.
    """

    number: int
    kind: Literal["told", "done", "failed", "lost", "late"]
    value: Any = None
    worker: int = 0


class Engine(ABC):
    """Workers side by side. They end with `close`, and with the process that made them, however it goes.

    Attributes:
        jobs: number of workers.
    """

    jobs: int

    @abstractmethod
    def submit(self, number: int, task: Any, *, limit: float | None = None) -> None:
        """Have a task made as soon as a worker is free, in the order in which tasks are submitted.

        Args:
            number: names the task in events.
            task: what the workers' `Make` takes; it is pickled.
            limit: seconds after which its worker is ended, and the task is ``late``; opening does not count.
        """

    @abstractmethod
    def events(self, timeout: float | None = None) -> list[Event]:
        """What has happened; waits until something has, or ``timeout`` seconds have passed."""

    @abstractmethod
    def close(self) -> None:
        """End the workers at once, whatever they are doing."""


def make_engine(name: str, jobs: int, opener: str, setup: Mapping[str, Any], *, retries: int = 0) -> Engine:
    """An engine with its workers.

    Args:
        name: one of `ENGINES`.
        jobs: number of workers.
        opener: ``"package.module:function"``, an `Open`.
        setup: what it is given.
        retries: how often a task is made again whose worker was ended from outside.

    Raises:
        OptionError: there is no such engine.
        MissingDependencyError: it needs a package that is not installed.
    """
    check_engine(name)
    if name == "ray":
        from stillhouse.engines.on_ray import RayEngine

        return RayEngine(jobs, opener, setup, retries=retries)
    from stillhouse.engines.local import LocalEngine

    return LocalEngine(jobs, opener, setup, retries=retries)


def check_engine(name: str) -> None:
    """Whether there is an engine of that name.

    Raises:
        OptionError: there is none.
    """
    if name not in ENGINES:
        raise OptionError(f"'{name}' is not an engine", where="--engine", fix=nearest(name, ENGINES))


class Desk:
    """What a worker does with a task, whatever brings it: opened at the first one.

    Args:
        opener: see `make_engine`.
        setup: what it is given.
        tell: receives what happens.
        opened: called once it is.
    """

    def __init__(self, opener: str, setup: Mapping[str, Any], tell: Tell, opened: Callable[[], None]) -> None:
        self._opener, self._setup, self._tell, self._opened = opener, setup, tell, opened
        self._make: Make | None = None

    def make(self, task: Any) -> tuple[Literal["done", "failed"], Any]:
        """How the task ended, and its result or the exception."""
        try:
            if self._make is None:
                module, _, name = self._opener.partition(":")
                self._make = getattr(import_module(module), name)(self._setup, self._tell)
                self._opened()
            return "done", self._make(task)
        except Exception as error:
            return "failed", _portable(error)


def _portable(error: Exception) -> Exception:
    """The error as it can be sent, with its traceback as a note."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error
