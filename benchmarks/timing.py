"""Timing two pieces of work in turn, and how the ratio is told."""

from __future__ import annotations

import gc
import resource
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
        goal: the largest ratio that is wanted; None where there is no goal.
    """

    name: str
    ours: float
    yardstick: float
    ratios: tuple[float, ...]
    unit: str = "ms"
    goal: float | None = None

    @property
    def ratio(self) -> float:
        """Median ratio; below 1 ours is better."""
        return statistics.median(self.ratios)


def processor_seconds() -> float:
    """Processor time of this process and its finished children, in which waiting on a busy machine does not count."""
    # Not os.times, whose steps of 10 ms are as long as a bare interpreter takes.
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def compare(
    name: str,
    ours: Callable[[], object],
    yardstick: Callable[[], object],
    *,
    pairs: int = 9,
    goal: float | None = None,
    clock: Callable[[], float] = time.process_time,
) -> Comparison:
    """Run both ``pairs`` times, A B then B A, so that a slow spell of the machine meets both.

    Args:
        name: what is compared.
        ours: our work.
        yardstick: what it is held against.
        pairs: how often.
        goal: see `Comparison`.
        clock: in seconds; processor time of this process, or `processor_seconds` for work in others.
    """
    ours()
    yardstick()
    taken: dict[Callable[[], object], list[float]] = {ours: [], yardstick: []}
    for number in range(pairs):
        for each in (ours, yardstick) if number % 2 else (yardstick, ours):
            taken[each].append(_seconds(each, clock))
    return Comparison(
        name,
        1000 * statistics.median(taken[ours]),
        1000 * statistics.median(taken[yardstick]),
        tuple(a / b for a, b in zip(taken[ours], taken[yardstick], strict=True)),
        goal=goal,
    )


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.collect()
    gc.disable()
    try:
        start = clock()
        work()
        return clock() - start
    finally:
        gc.enable()
