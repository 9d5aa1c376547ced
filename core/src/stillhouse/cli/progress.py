"""Progress of a run on stderr: bars with the time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from stillhouse.cli.output import console, print_lines, print_warning
from stillhouse.progress import Silent


class Bars:
    """A bar per model in training, in a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None
        self._label = ""

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, name: str, note: str = "") -> None:
        """See `stillhouse.progress.Reporter`."""
        self._progress.console.print(Text.assemble((name, "bold"), f"  {note}"))

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        """See `stillhouse.progress.Reporter`."""
        self._label = label
        note = f"goes on after epoch {done}" if done else ""
        self._task = self._progress.add_task(label, total=max(epochs, 1), completed=done, note=note)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `stillhouse.progress.Reporter`."""
        if self._task is not None:
            shown = next(iter(record["val"].items()))
            self._progress.update(
                self._task, completed=record["epoch"] + 1, note=f"validation {shown[0]} {shown[1]:.4g}"
            )

    def model_done(self, note: str = "") -> None:
        """See `stillhouse.progress.Reporter`."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._progress.console.print(f"  {self._label}: {note}")

    def warn(self, message: str) -> None:
        """See `stillhouse.progress.Reporter`."""
        self._progress.console.print(Text.assemble(("warning: ", "yellow"), message))


class Warnings(Silent):
    """Nothing but warnings."""

    def warn(self, message: str) -> None:
        """See `stillhouse.progress.Reporter`."""
        print_warning(message)


class Lines:
    """A line per stage and per model, and at most one every ten seconds while a model trains."""

    def __init__(self) -> None:
        self._label, self._printed = "", 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

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
        if time.monotonic() - self._printed >= 10:
            self._printed = time.monotonic()
            name, value = next(iter(record["val"].items()))
            print_lines(
                f"  {self._label}: epoch {record['epoch'] + 1} of {record['epochs']}, validation {name} {value:.4g}",
                stderr=True,
            )

    def model_done(self, note: str = "") -> None:
        """See `stillhouse.progress.Reporter`."""
        print_lines(f"  {self._label}: {note}", stderr=True)

    def warn(self, message: str) -> None:
        """See `stillhouse.progress.Reporter`."""
        print_warning(message)
