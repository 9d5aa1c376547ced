"""Numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NONE = "–"
MOST_CLASSES = 12
"""Of more classes not each is told."""


def short(value: float | None, unit: str = "", digits: int = 3) -> str:
    """``12345`` as ``12.3 k``; a dash for None."""
    if value is None:
        return NONE
    for size, prefix in PREFIXES:
        if abs(value) >= size:
            return f"{_significant(value / size, digits)} {prefix}{unit}"
    return f"{_significant(value, digits)}{f' {unit}' if unit else ''}"


def _significant(value: float, digits: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}" if value == 0 else str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text and float(text).is_integer() else text


def decimals(value: float | None) -> int:
    """Decimals that show four significant digits of ``value``, at least two of them after the point for small
    ones."""
    if value is None or value == 0 or not math.isfinite(value):
        return 3
    return min(6, max(0, 3 - math.floor(math.log10(abs(value)))))


def number(value: float | None, places: int | None = None) -> str:
    """A metric, with thousands separated; a dash for None."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.{decimals(value) if places is None else places}f}".replace(",", " ").replace("-", "−")


def interval(bounds: Sequence[float] | None, like: float | None) -> str:
    """``12.91 to 13.30`` over seeds, with as many decimals as ``like``; empty for None."""
    if bounds is None:
        return ""
    if bounds[0] == bounds[1]:
        return "the same for all seeds"
    places = decimals(like)
    return f"{number(bounds[0], places)} to {number(bounds[1], places)}"


def signed(value: float | None, places: int | None = None) -> str:
    """A difference, always with its sign."""
    if value is None:
        return NONE
    return f"{'+' if value > 0 else ''}{number(value, places)}"


def factor(value: float | None) -> str:
    """``25×``."""
    return NONE if value is None else f"{_significant(value, 3)}×"


def duration(seconds: float) -> str:
    """``3 min 05 s``."""
    if seconds < 60:
        return f"{_significant(seconds, 2)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def threads(given: Any) -> str:
    """CPU threads of the trainings, as the manifest has them: ``"training on 1 thread"``."""
    counts = sorted({count for stage in given.get("training", {}).values() for count in stage}) or [given["process"]]
    return f"training on {' or '.join(map(str, counts))} thread{'' if counts == [1] else 's'}"


def whole(value: int) -> str:
    """A whole number, with thousands separated."""
    return number(value, 0)


def classes(dataset: Mapping[str, Any], *, count: Callable[[int], str] = whole) -> str:
    """``no (812), yes (190) training rows; the event to find is 'yes'``: as a summary or a check has them.

    Of many classes the smallest and the largest count; empty where there are no classes.

    Args:
        dataset: the ``dataset`` of a summary or a check.
        count: how a number of rows is written.
    """
    found = dataset.get("classes") or ()
    counts = [each["rows"] for each in found if each["rows"] is not None]
    if len(found) > MOST_CLASSES:
        told = f"{len(found)} classes" + (f" of {count(min(counts))} to {count(max(counts))}" if counts else "")
    else:
        told = ", ".join(each["name"] + (f" ({count(each['rows'])})" if counts else "") for each in found)
    told += " training rows" if counts else ""
    return f"{told}; the event to find is '{dataset['event']}'" if dataset.get("event") else told
