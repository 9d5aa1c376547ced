"""How a run tells what it is doing: one small protocol, silent by default; the command line brings bars and plain
lines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
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


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect what components say by ``warnings.warn(message)``; warnings of other categories pass."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        yield messages
    for each in caught:
        if each.category is UserWarning:
            messages.append(str(each.message))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
