"""Progress of a run on stderr: bars with the time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from stillhouse.cli.numbers import in_time
from stillhouse.cli.output import assembled, console, print_lines, print_warning
from stillhouse.progress import Silent


class Whole:
    """How far a whole run is: trainings planned and finished, and the time left, by what the epochs of each role took.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Any = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._left: dict[str, tuple[str, float]] = {}
        self._seconds: dict[str, list[float]] = {}
        self._role: dict[str, str] = {}
        self.lanes = 1
        self.planned = self.finished = 0

    def plan(self, trainings: Sequence[tuple[str, str, int]]) -> None:
        """Label, role and epochs of each training."""
        self._left = {label: (role, float(epochs)) for label, role, epochs in trainings}
        self._role = {label: role for label, role, _ in trainings}
        self.planned = len(self._left)

    def epoch(self, label: str, record: Mapping[str, Any]) -> None:
        """An epoch of a model ended; phases of a model count as parts of it."""
        name = self._known(label)
        if name is None:
            return
        role, left = self._left.get(name, (self._role[name], 0.0))
        self._left[name] = (role, max(left - 1, 0.0))
        self._seconds.setdefault(role, []).append(float(record["seconds"]))

    def done(self, label: str) -> None:
        """A model is finished."""
        if (name := self._known(label)) == label and name in self._left:
            del self._left[name]
            self.finished += 1

    def _known(self, label: str) -> str | None:
        """The training that a label, perhaps with a phase, is of."""
        return next((name for name in sorted(self._role, key=len, reverse=True) if label.startswith(name)), None)

    @property
    def taken(self) -> float:
        """Seconds since the beginning."""
        return float(self._clock() - self._began)

    @property
    def left(self) -> float | None:
        """Seconds left, about; None while nothing is known of them. A role that has no epoch yet takes as long as the
        one that has the longest (students are like the baseline), but never as long as a teacher, which says nothing
        of them."""
        means = self._means()
        own = [mean for role, mean in means.items() if role != "teacher"]
        if not own and any(role not in means for role, _ in self._left.values()):
            return None
        return sum(left * means.get(role, max(own, default=0)) for role, left in self._left.values()) / self.lanes

    def _means(self) -> dict[str, float]:
        return {role: sum(found) / len(found) for role, found in self._seconds.items()}

    def note(self) -> str:
        """``3 of 11 models, about 40 s left``, or how long the teacher takes while no more is known; empty without a
        plan."""
        if not self.planned:
            return ""
        told = f"{self.finished} of {self.planned} models"
        if (left := self.left) is not None and self._left:
            return f"{told}, about {in_time(max(round(left), 1))} left"
        mean = self._means().get("teacher", 0.0)
        of_teacher = sum(epochs * mean for role, epochs in self._left.values() if role == "teacher")
        return f"{told}, about {in_time(max(round(of_teacher), 1))} left of the teacher" if of_teacher else told


class Bars:
    """A bar per model in training, and one line for the whole run, in a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("[dim]{task.fields[note]}"),
            console=console(stderr=True),
            transient=True,
        )
        self._whole = Whole()
        self._own = _BarLane(self._progress, self._whole, self._refresh)
        self._all: TaskID | None = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._progress.stop()
        if kind is None and self._whole.planned:
            self._progress.console.print(f"done in {in_time(self._whole.taken)}")

    def plan(self, trainings: Sequence[tuple[str, str, int]]) -> None:
        """See `stillhouse.progress.plan`."""
        self._whole.plan(trainings)
        self._all = self._progress.add_task("all", total=max(self._whole.planned, 1), note="")
        self._refresh()

    def lane(self, number: int) -> _BarLane:
        """See `stillhouse.progress.lane`."""
        self._whole.lanes = max(self._whole.lanes, number + 1)
        return _BarLane(self._progress, self._whole, self._refresh)

    def _refresh(self) -> None:
        if self._all is not None:
            self._progress.update(self._all, completed=self._whole.finished, note=self._whole.note())

    def stage(self, name: str, note: str = "") -> None:
        """See `stillhouse.progress.Reporter`."""
        self._own.stage(name, note)

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        """See `stillhouse.progress.Reporter`."""
        self._own.model(label, epochs, done)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `stillhouse.progress.Reporter`."""
        self._own.epoch(record)

    def model_done(self, note: str = "") -> None:
        """See `stillhouse.progress.Reporter`."""
        self._own.model_done(note)

    def warn(self, message: str) -> None:
        """See `stillhouse.progress.Reporter`."""
        self._own.warn(message)


class _BarLane:
    """One model after the other."""

    def __init__(self, progress: Progress, whole: Whole, refresh: Any) -> None:
        self._progress, self._whole, self._refresh = progress, whole, refresh
        self._task: TaskID | None = None
        self._label = ""

    def stage(self, name: str, note: str = "") -> None:
        self._progress.console.print(assembled((name, "bold"), f"  {note}"))

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        self._label = label
        note = f"goes on after epoch {done}" if done else ""
        self._task = self._progress.add_task(label, total=max(epochs, 1), completed=done, note=note)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._whole.epoch(self._label, record)
        self._refresh()
        if self._task is not None:
            shown = next(iter(record["val"].items()))
            self._progress.update(
                self._task, completed=record["epoch"] + 1, note=f"validation {shown[0]} {shown[1]:.4g}"
            )

    def model_done(self, note: str = "") -> None:
        self._whole.done(self._label)
        self._refresh()
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._progress.console.print(f"  {self._label}: {note}")

    def warn(self, message: str) -> None:
        self._progress.console.print(assembled(("warning: ", "yellow"), message))


class Warnings(Silent):
    """Nothing but warnings."""

    def warn(self, message: str) -> None:
        """See `stillhouse.progress.Reporter`."""
        print_warning(message)


class Lines:
    """A line per stage and per model, and at most one every ten seconds while a model trains."""

    def __init__(self, whole: Whole | None = None) -> None:
        self._label, self._printed = "", 0.0
        self._whole = whole or Whole()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._whole.planned:
            print_lines(f"done in {in_time(self._whole.taken)}", stderr=True)

    def plan(self, trainings: Sequence[tuple[str, str, int]]) -> None:
        """See `stillhouse.progress.plan`."""
        self._whole.plan(trainings)

    def lane(self, number: int) -> Lines:
        """See `stillhouse.progress.lane`."""
        self._whole.lanes = max(self._whole.lanes, number + 1)
        return Lines(self._whole)

    def stage(self, name: str, note: str = "") -> None:
        """See `stillhouse.progress.Reporter`."""
        print_lines(f"{name}  {note}".rstrip(), stderr=True)

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        """See `stillhouse.progress.Reporter`."""
        self._label, self._printed = label, time.monotonic()
        if done:
            print_lines(f"  {label}: goes on after epoch {done} of {epochs}", stderr=True)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `stillhouse.progress.Reporter`."""
        self._whole.epoch(self._label, record)
        if time.monotonic() - self._printed >= 10:
            self._printed = time.monotonic()
            name, value = next(iter(record["val"].items()))
            told = f"; {self._whole.note()}" if self._whole.planned else ""
            print_lines(
                f"  {self._label}: epoch {record['epoch'] + 1} of {record['epochs']}, validation {name} {value:.4g}"
                f"{told}",
                stderr=True,
            )

    def model_done(self, note: str = "") -> None:
        """See `stillhouse.progress.Reporter`."""
        self._whole.done(self._label)
        print_lines(f"  {self._label}: {note}", stderr=True)

    def warn(self, message: str) -> None:
        """See `stillhouse.progress.Reporter`."""
        print_warning(message)
