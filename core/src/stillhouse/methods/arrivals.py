"""Which rows of a stream arrive when: training rows in chunks, in order of time or class by class, and a sample of what
has passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillhouse.errors import IncompatibleError
from stillhouse.types import Split

LEAST = 2
"""Rows of a chunk at least: normalisation layers need two."""


@dataclass(frozen=True)
class Arrivals:
    """Chunks of rows in order, and which of them the first model may know.

    Attributes:
        chunks: positions of the rows of each chunk, in order of arrival.
        warm: number of chunks whose rows the first model is fitted on.
        delay: number of chunks until the labels of a chunk are known.
    """

    chunks: list[list[int]]
    warm: int
    delay: int

    @property
    def first(self) -> int:
        """The first chunk that is predicted: labels of the warm chunks are known when it arrives."""
        return self.warm + self.delay

    def rows(self, start: int, end: int) -> list[int]:
        """Positions of the rows of chunks ``start`` to ``end - 1``."""
        return [position for chunk in self.chunks[start:end] for position in chunk]


def by_time(times: Sequence[float], chunks: int, span: float | None) -> list[list[int]]:
    """Positions in order of time, cut into chunks; rows of the same time are in the same chunk.

    Args:
        times: of each row.
        chunks: how many, of about equally many rows.
        span: length of a chunk in time instead: it has the rows with the same ``floor(time / span)``.
    """
    stamps = np.asarray(times, dtype=float)
    order = np.argsort(stamps, kind="stable")
    ordered = stamps[order]
    if span is not None:
        edges = np.flatnonzero(np.diff(np.floor(ordered / span))) + 1
    else:
        wanted = np.linspace(0, len(ordered), min(chunks, len(ordered)) + 1).round().astype(int)[1:-1]
        edges = np.searchsorted(ordered, ordered[wanted - 1], side="right")
    return _not_too_small([part.tolist() for part in np.split(order, np.unique(edges))])


def by_class(target: np.ndarray) -> list[list[int]]:
    """One chunk a class, in the order of the class numbers; rows of a class stay in their order."""
    return [np.flatnonzero(target == label).tolist() for label in np.unique(target)]


def _not_too_small(chunks: Sequence[list[int]]) -> list[list[int]]:
    found: list[list[int]] = []
    for chunk in chunks:
        if found and min(len(chunk), len(found[-1])) < LEAST:
            found[-1] = [*found[-1], *chunk]
        elif chunk:
            found.append(chunk)
    return found


def warm_chunks(chunks: Sequence[Sequence[int]], share: float) -> int:
    """Number of chunks at the beginning that together have at least ``share`` of the rows."""
    sizes = np.cumsum([len(chunk) for chunk in chunks])
    return int(np.searchsorted(sizes, share * sizes[-1] - 1e-9)) + 1


def refuse_early_labels(arrivals: Arrivals, split: Split) -> None:
    """Refuse a delay after which some labels are used that nobody knows yet: those of forecasts, whose target lies
    ahead (`Split.until`).

    Raises:
        IncompatibleError: a chunk's labels reach beyond the chunk before which they are learned.
    """
    if split.until is None or split.times is None:
        return
    for number, chunk in enumerate(arrivals.chunks):
        learned = max(number, arrivals.warm - 1) + arrivals.delay + 1
        if learned >= len(arrivals.chunks):
            return
        known = max(split.until[position] for position in chunk)
        begins = min(split.times[position] for position in arrivals.chunks[learned])
        if known > begins:
            raise IncompatibleError(
                f"labels of chunk {number + 1} are known at time {known:g}, and chunk {learned + 1}, which is "
                f"predicted after they are learned, begins at {begins:g}",
                where="method.delay",
                fix=f"set method.delay to {arrivals.delay + 1} or more, or make chunks longer",
            )


class Reservoir:
    """A uniform sample of all rows that have passed, of fixed size.

    Source: Vitter, "Random Sampling with a Reservoir" (1985), algorithm R.

    Args:
        size: rows that are kept.
        seed: of the choice.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.rows: list[int] = []
        self._size, self._passed, self._random = size, 0, np.random.default_rng(seed)

    def add(self, positions: Sequence[int]) -> None:
        """Let rows pass, of which some are kept in place of others."""
        for position in positions:
            self._passed += 1
            if len(self.rows) < self._size:
                self.rows.append(position)
            elif self._size and (place := int(self._random.integers(self._passed))) < self._size:
                self.rows[place] = position
