"""Where a search measures: in this process, or side by side in others."""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillhouse.engines import make_engine
from stillhouse.engines.base import Make, Tell
from stillhouse.errors import TrainingError
from stillhouse.plugins.manager import Manager
from stillhouse.progress import collect_warnings
from stillhouse.recipe.check import resolve
from stillhouse.tuning.bench import Bench, Result, Work, make_bench

POLL = 0.05
"""Seconds between two looks at what is asked for and what is done."""


class Here:
    """Measures in this process, one after the other.

    Args:
        bench: what measures.
    """

    jobs = 1

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def submit(self, work: Work, *, limit: float | None = None) -> Future[Result]:
        """Measure at once; nothing can end it in this process, so that ``limit`` is not kept."""
        done: Future[Result] = Future()
        done.set_result(self._bench.measure(work))
        return done

    def close(self) -> None:
        """Nothing to end."""


class Processes:
    """Measures side by side, one thread each; each worker makes the rows for itself.

    Args:
        jobs: number of workers.
        setup: what `open_bench` needs to make an equal bench.
        engine: where they are, see `stillhouse.engines.ENGINES`.
    """

    def __init__(self, jobs: int, setup: Mapping[str, Any], engine: str = "local") -> None:
        self._engine = make_engine(engine, jobs, "stillhouse.tuning.pool:open_bench", setup)
        self.jobs = self._engine.jobs
        self._asked: queue.SimpleQueue[tuple[Work, float | None, Future[Result]]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, work: Work, *, limit: float | None = None) -> Future[Result]:
        """Measure as soon as a worker is free; after ``limit`` seconds of work it is ended, and the result says so."""
        future: Future[Result] = Future()
        self._asked.put((work, limit, future))
        return future

    def _serve(self) -> None:
        """Give to the engine what is asked for, and to those who asked what becomes of it."""
        numbers, waiting = itertools.count(), dict[int, tuple[float | None, Future[Result]]]()
        while not self._closing.is_set():
            try:
                work, limit, future = self._asked.get(block=not waiting, timeout=POLL)
            except queue.Empty:
                pass
            else:
                number = next(numbers)
                waiting[number] = (limit, future)
                self._engine.submit(number, work, limit=limit)
                continue
            for event in self._engine.events(POLL) if waiting else ():
                limit, future = waiting.pop(event.number)
                if event.kind == "done":
                    future.set_result(event.value)
                elif event.kind == "late":
                    future.set_result(Result(None, error=f"it took longer than {limit:.2g} s", seconds=limit or 0.0))
                elif event.kind == "failed":
                    future.set_exception(event.value)
                else:
                    future.set_exception(
                        TrainingError(
                            "a process that measured was ended",
                            where="--jobs",
                            fix="start the search again; with fewer --jobs if memory was short",
                        )
                    )

    def close(self) -> None:
        """End the workers; what has not begun is dropped."""
        self._closing.set()
        self._thread.join()
        self._engine.close()


Pool = Here | Processes


def open_bench(setup: Mapping[str, Any], _: Tell) -> Make:
    """What measures in this worker; its bench is equal to that of the process which began the search."""
    os.environ["OMP_NUM_THREADS"] = "1"
    registry = Manager(**setup["manager"]).registry
    resolved = replace(resolve(setup["recipe"], registry), base=Path(setup["base"]))
    with collect_warnings():
        bench = make_bench(resolved, registry, Path(setup["folder"]), folds=setup["folds"], seed=setup["seed"])
    return bench.measure
