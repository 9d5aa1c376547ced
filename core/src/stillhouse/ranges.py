"""The useful values of an option, for searches: declared in a component's signature or a recipe's ``search``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included: ``temperature: Annotated[float, Range(1, 8, log=True)] = 4.0``.

    Args:
        low: the smallest useful value.
        high: the largest.
        log: try orders of magnitude evenly.
        whole: whole numbers only; so it is when both bounds are whole numbers, unless it says otherwise.
        size: larger values make a larger model.

    Raises:
        ValueError: the bounds are not finite, not in order, or not positive with ``log``.
    """

    low: float
    high: float
    log: bool = False
    whole: bool | None = None
    size: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range needs finite bounds in order, not {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"orders of magnitude need a low bound above 0, not {self.low}")
        if self.whole is None:
            object.__setattr__(self, "whole", isinstance(self.low, int) and isinstance(self.high, int))

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """One of several values: ``max_depth: Annotated[int | None, Choices(4, 8, None)] = None``.

    Args:
        values: at least two.
        size: they are in order, and later ones make a larger model.

    Raises:
        ValueError: fewer than two.
    """

    values: tuple[Any, ...]
    size: bool = False

    def __init__(self, *values: Any, size: bool = False) -> None:
        if len(values) < 2:
            raise ValueError("a choice needs at least two values")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "size", size)

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


Space = Range | Choices


def parse_space(given: Any) -> Space:
    """A space as a recipe writes it: a list of values, or ``{low: 1, high: 8, log: true}``.

    Raises:
        ValueError: neither of the two, or bounds that `Range` refuses.
    """
    if isinstance(given, Range | Choices):
        return given
    if isinstance(given, list | tuple):
        return Choices(*given)
    if isinstance(given, Mapping) and {"low", "high"} <= set(given) <= {"low", "high", "log", "whole"}:
        numbers = (given["low"], given["high"])
        if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
            raise ValueError(f"low and high must be numbers, not {numbers[0]!r} and {numbers[1]!r}")
        return Range(given["low"], given["high"], bool(given.get("log", False)), given.get("whole"))
    raise ValueError(f"{given!r} is neither a list of values nor {{low: 1, high: 8, log: true}}")
