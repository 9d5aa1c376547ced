"""Parts of a run that do not depend on each other, models and shards, made side by side by the workers of an engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.engines import make_engine
from stillhouse.engines.base import Make, Tell
from stillhouse.errors import OptionError, TrainingError
from stillhouse.progress import Reporter, Silent, lane

RETRIES = 3
"""How often a shard is made again whose worker was ended from outside."""


@dataclass(frozen=True)
class Part:
    """What a worker makes.

    Attributes:
        stage: "teacher", "baseline", "student", or "label".
        position: of the model in its stage, or of the shard in its split.
        label: what to call it.
        given: of a shard: its split, and what is stored of it.
    """

    stage: str
    position: int
    label: str
    given: tuple[Any, ...] = ()


class Workers:
    """Workers that make parts of one run, each with its own copy of the rows. They end with this process.

    Args:
        engine: where they work, see `stillhouse.engines.ENGINES`.
        jobs: number of workers.
        setup: what `open_run` needs: ``manager`` (its arguments), ``recipe`` (plain values), ``base``, ``folder``.
        retries: how often a part is made again whose worker was ended from outside.
    """

    def __init__(self, engine: str, jobs: int, setup: Mapping[str, Any], *, retries: int = 0) -> None:
        self._where = "--jobs" if engine == "local" else f"--engine {engine}"
        self._engine = make_engine(engine, jobs, "stillhouse.pipeline.workers:open_run", setup, retries=retries)

    def make(
        self,
        parts: Sequence[Part],
        reporter: Reporter,
        warn: Callable[[str], None],
        *,
        made: Callable[[int, Any], None] | None = None,
        failed: Callable[[int, Exception], None] | None = None,
    ) -> None:
        """Make parts, in order as far as workers are free.

        Args:
            parts: what to make.
            reporter: receives what happens in all workers, one lane each.
            warn: receives warnings when all is done, in the order of the parts.
            made: receives the position of each part as it is finished, and its result.
            failed: receives the position of each part that could not be made, and why; the others are made. Without
                it the first one ends all.

        Raises:
            StillhouseError: what went wrong in a worker; the others are stopped.
            TrainingError: a worker was ended from outside.
        """
        for number, part in enumerate(parts):
            self._engine.submit(number, part)
        left, warnings = len(parts), dict[int, list[str]]()
        lanes = {number: lane(reporter, number) for number in range(self._engine.jobs)}
        while left:
            for event in self._engine.events():
                if event.kind == "told":
                    kind, given = event.value
                    if kind == "warn":
                        warnings.setdefault(event.number, []).append(*given)
                    else:
                        getattr(lanes[event.worker], kind)(*given)
                    continue
                left -= 1
                if event.kind == "done":
                    if made is not None:
                        made(event.number, event.value)
                    continue
                error = event.value if event.kind == "failed" else self._lost(parts[event.number])
                if failed is None:
                    raise error
                failed(event.number, error)
        for number in sorted(warnings):
            for message in warnings[number]:
                warn(message)

    def _lost(self, part: Part) -> TrainingError:
        return TrainingError(
            f"the process that made {part.label} was ended",
            where=self._where,
            fix="start the run again; with fewer --jobs if memory was short",
        )

    def close(self) -> None:
        """End the workers: at once, whatever they are doing; what they have finished is in the run folder."""
        self._engine.close()


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


class _Telling(Silent):
    """Tells what happens to a part; silent while rows are made and models loaded, of which the process that began the
    run tells itself."""

    def __init__(self, tell: Tell) -> None:
        self._receiver, self.active = tell, False

    def _tell(self, kind: str, *given: Any) -> None:
        if self.active:
            self._receiver(kind, given)

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        self._tell("model", label, epochs, done)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._tell("epoch", dict(record))

    def model_done(self, note: str = "") -> None:
        self._tell("model_done", note)

    def stage(self, name: str, note: str = "") -> None:
        self._tell("stage", name, note)

    def warn(self, message: str) -> None:
        self._tell("warn", message)


def open_run(setup: Mapping[str, Any], tell: Tell) -> Make:
    """What makes parts of a run in this worker; its context is equal to that of the process which began the run."""
    from stillhouse.pipeline.opening import reopen_context

    reporter = _Telling(tell)
    context = reopen_context(**setup, reporter=reporter)
    opened: dict[tuple[Any, ...], Callable[[int], Any]] = {}

    def make(part: Part) -> Any:
        key = (part.stage, *part.given)
        if key not in opened:
            opened[key] = _makes(context, part)
        reporter.active = True
        try:
            return opened[key](part.position)
        finally:
            reporter.active = False

    return make


def _makes(context: Any, part: Part) -> Callable[[int], Any]:
    """A function that makes what is at a position of the part's stage."""
    from stillhouse.pipeline.signal import stored
    from stillhouse.pipeline.student import baseline_pieces, distil, student_pieces
    from stillhouse.pipeline.teacher import teacher_pieces, teacher_stage

    if part.stage == "label":
        name, entries = part.given
        found = {each.name: each for each in stored(context, teacher_stage(context), entries)}[name]
        return lambda position: found.shards.make(position, found.fill)
    if part.stage == "student":
        teacher = teacher_stage(context)  # finished: it is loaded
        students = student_pieces(context, teacher)
        return lambda position: distil(context, teacher, [students[position]])
    others = teacher_pieces(context) if part.stage == "teacher" else baseline_pieces(context)

    def make(position: int) -> None:
        others[position].make()

    return make
