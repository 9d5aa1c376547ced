"""Timing two pieces of work in turn, and how the ratio is told."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Ours against a yardstick.

    Args:
        name: what is compared.
        ours: ours, the median.
        yardstick: the yardstick's, the median.
        ratios: ours over the yardstick, one for each pair of runs.
        unit: of both.
    """

    name: str
    ours: float
    yardstick: float
    ratios: tuple[float, ...]
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        """Median ratio; below 1 ours is better."""
        return statistics.median(self.ratios)


def compare(name: str, ours: Callable[[], object], yardstick: Callable[[], object], *, pairs: int = 9) -> Comparison:
    """Run both ``pairs`` times, A B then B A, so that a slow spell of the machine meets both."""
    ours()
    yardstick()
    taken: dict[Callable[[], object], list[float]] = {ours: [], yardstick: []}
    for number in range(pairs):
        for each in (ours, yardstick) if number % 2 else (yardstick, ours):
            taken[each].append(_seconds(each))
    return Comparison(
        name,
        1000 * statistics.median(taken[ours]),
        1000 * statistics.median(taken[yardstick]),
        tuple(a / b for a, b in zip(taken[ours], taken[yardstick], strict=True)),
    )


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    finally:
        gc.enable()
