"""How a run tells what it is doing: one small protocol, silent by default; the command line brings bars and plain
lines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Reporter(Protocol):
    """Receives what happens, in order; it never changes what happens."""

    def stage(self, name: str, note: str = "") -> None:
        """A stage begins, or is skipped or repeated, and why."""

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        """Training of one model begins, or goes on after ``done`` epochs."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch of the current model ended; the record is the line of ``metrics.jsonl``."""

    def model_done(self, note: str = "") -> None:
        """The current model is finished."""

    def warn(self, message: str) -> None:
        """Something that the user should know."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, note: str = "") -> None:
        """See `Reporter`."""

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        """See `Reporter`."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `Reporter`."""

    def model_done(self, note: str = "") -> None:
        """See `Reporter`."""

    def warn(self, message: str) -> None:
        """See `Reporter`."""


class WholeModels:
    """A lane of a reporter that has none: what happens to one model is told when it is finished, all at once.

    Args:
        reporter: receives it.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._kept = reporter, list[tuple[str, tuple[Any, ...]]]()

    def stage(self, name: str, note: str = "") -> None:
        """See `Reporter`."""
        self._reporter.stage(name, note)

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        """See `Reporter`."""
        self._kept = [("model", (label, epochs, done))]

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `Reporter`."""
        self._kept.append(("epoch", (record,)))

    def model_done(self, note: str = "") -> None:
        """See `Reporter`."""
        for name, given in (*self._kept, ("model_done", (note,))):
            getattr(self._reporter, name)(*given)
        self._kept = []

    def warn(self, message: str) -> None:
        """See `Reporter`."""
        self._reporter.warn(message)


def lane(reporter: Reporter, number: int) -> Reporter:
    """What receives the events of one of several models that are made side by side: the reporter's own lane
    (``reporter.lane(number)``), or whole models one after the other."""
    own = getattr(reporter, "lane", None)
    made: Reporter = own(number) if own is not None else WholeModels(reporter)
    return made


def plan(reporter: Reporter, trainings: Sequence[tuple[str, str, int]]) -> None:
    """Tell a reporter that wants to know (``reporter.plan(trainings)``) what is to be trained.

    Args:
        reporter: is told, if it has the method.
        trainings: label, role and epochs of each model; models of one role take about as long.
    """
    if (own := getattr(reporter, "plan", None)) is not None:
        own(trainings)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect what components say by ``warnings.warn(message)``, told when the context is left; warnings of other
    categories pass."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        try:
            yield messages
        finally:  # an error may refer to them
            messages += [str(each.message) for each in caught if each.category is UserWarning]
    for each in caught:
        if each.category is not UserWarning:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
