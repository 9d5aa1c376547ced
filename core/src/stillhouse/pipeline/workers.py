"""Models of a run that do not depend on each other, made side by side in processes of their own."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stillhouse.errors import OptionError, TrainingError
from stillhouse.progress import Reporter, Silent, lane

Stage = str
"""A name of `_PIECES`."""


class Workers:
    """Processes that make pieces of one run, each with its own copy of the rows. They end with this process.

    Args:
        jobs: number of processes.
        setup: what `_open` needs: ``manager`` (its arguments), ``recipe`` (plain values), ``base``, ``folder``.
    """

    def __init__(self, jobs: int, setup: Mapping[str, Any]) -> None:
        method = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        with _one_thread():
            for _ in range(jobs):
                here, there = method.Pipe()
                process = method.Process(target=_work, args=(there, dict(setup)), daemon=True)
                process.start()
                there.close()
                self._pipes.append(here)
                self._processes.append(process)

    def make(
        self,
        pieces: Sequence[tuple[Stage, int, str]],
        reporter: Reporter,
        warn: Callable[[str], None],
    ) -> None:
        """Make pieces, in order as far as processes are free.

        Args:
            pieces: stage, position in the stage, and label of each.
            reporter: receives what happens in all processes, one lane each.
            warn: receives warnings when all is done, in the order of the pieces.

        Raises:
            StillhouseError: what went wrong in a process; the others are stopped.
            TrainingError: a process was ended from outside.
        """
        waiting, busy = deque(enumerate(pieces)), dict[Connection, int]()
        warnings: dict[int, list[str]] = {}
        lanes = {pipe: lane(reporter, number) for number, pipe in enumerate(self._pipes)}
        while waiting or busy:
            for pipe in self._pipes:
                if waiting and pipe not in busy:
                    busy[pipe], (stage, position, _) = waiting.popleft()
                    pipe.send((stage, position))
            ready = set(connection.wait(list(busy)))
            for pipe in [each for each in self._pipes if each in ready]:
                number = busy[pipe]
                try:
                    kind, *given = pipe.recv()
                except (EOFError, OSError) as error:
                    raise TrainingError(
                        f"the process that made {pieces[number][2]} was ended",
                        where="--jobs",
                        fix="start the run again; with fewer --jobs if memory was short",
                    ) from error
                if kind == "done":
                    del busy[pipe]
                elif kind == "failed":
                    raise given[0]
                elif kind == "warn":
                    warnings.setdefault(number, []).append(*given)
                else:
                    getattr(lanes[pipe], kind)(*given)
        for number in sorted(warnings):
            for message in warnings[number]:
                warn(message)

    def close(self) -> None:
        """End the processes: at once, whatever they are doing; what they have finished is in the run folder."""
        for process in self._processes:
            process.terminate()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
        self._processes, self._pipes = [], []


def number_of_jobs(jobs: int | str) -> int:
    """``jobs`` as a number: ``"auto"`` is as many as there are cores.

    Raises:
        OptionError: it is neither a number from 1 upwards nor "auto", or a launcher has started several processes.
    """
    from stillhouse.training.threads import available_cores

    if jobs == "auto":
        found = available_cores()
    elif str(jobs).isdigit() and int(jobs) > 0:
        found = int(jobs)
    else:
        raise OptionError(f"--jobs is '{jobs}'", where="--jobs", fix="a number from 1 upwards, or auto")
    if found > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError(
            "several models side by side cannot be made by several processes each",
            where="--jobs",
            fix="leave out --jobs, or the launcher",
        )
    return found


@contextmanager
def _one_thread() -> Any:
    """Processes that start inside have one thread each, unless the environment says otherwise."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


class _Sending(Silent):
    """Sends what happens to a piece to the process that began the run; silent while rows are made and models loaded,
    of which that process tells itself."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self.active = pipe, False

    def _send(self, *event: Any) -> None:
        if self.active:
            self._pipe.send(event)

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        self._send("model", label, epochs, done)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._send("epoch", dict(record))

    def model_done(self, note: str = "") -> None:
        self._send("model_done", note)

    def stage(self, name: str, note: str = "") -> None:
        self._send("stage", name, note)

    def warn(self, message: str) -> None:
        self._send("warn", message)


def _work(pipe: Connection, setup: Mapping[str, Any]) -> None:
    """Make what is asked for, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began the run stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    context: Any = None
    pieces: dict[Stage, Any] = {}
    reporter = _Sending(pipe)
    while True:
        try:
            stage, position = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if context is None:
                context = _open(setup, reporter)
            if stage not in pieces:
                pieces[stage] = _pieces(context, stage)
            reporter.active = True
            pieces[stage](position)
        except Exception as error:
            pipe.send(("failed", _portable(error)))
        else:
            pipe.send(("done",))
        reporter.active = False


def _end_with_parent() -> None:
    """Another run may begin in the folder as soon as the process that began this one is gone, however it went."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _open(setup: Mapping[str, Any], reporter: Reporter) -> Any:
    """The context of the run, equal to that of the process which began it."""
    import torch

    from stillhouse.pipeline.opening import open_context
    from stillhouse.plugins.manager import Manager
    from stillhouse.recipe.check import resolve
    from stillhouse.training.threads import share

    torch.set_num_threads(share())
    registry = Manager(**setup["manager"]).registry
    resolved = replace(resolve(setup["recipe"], registry), base=Path(setup["base"]))
    return open_context(resolved, Path(setup["folder"]), registry, reporter, download=False)


def _pieces(context: Any, stage: Stage) -> Callable[[int], None]:
    """A function that makes the piece at a position of a stage."""
    from stillhouse.pipeline.student import baseline_pieces, distil, student_pieces
    from stillhouse.pipeline.teacher import teacher_pieces, teacher_stage

    if stage == "student":
        teacher = teacher_stage(context)  # finished: it is loaded
        students = student_pieces(context, teacher)
        return lambda position: distil(context, teacher, [students[position]])
    others = teacher_pieces(context) if stage == "teacher" else baseline_pieces(context)

    def make(position: int) -> None:
        others[position].make()

    return make


def _portable(error: Exception) -> Exception:
    """The error as it can be sent, with its traceback as a note."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error
