"""Schedules: an option (a temperature, a weight, alpha) as a function of how far a run has come."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Shape = Literal["constant", "linear", "cosine", "warmup"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A value that moves from ``start`` to ``end`` over the first ``fraction`` of a run and then stays at
    ``end``.

    Args:
        schedule: how it moves: ``"constant"`` is ``end`` throughout; ``"linear"`` and ``"warmup"`` go
            straight; ``"cosine"`` starts and arrives gently.
        start: value at the beginning.
        end: value once it has arrived.
        fraction: part of the run, in (0, 1], that the move takes.

    Raises:
        ValueError: an argument is not a finite number, the shape is unknown, or ``fraction`` lies outside
            (0, 1].
    """

    schedule: Shape = "constant"
    start: float = 0.0
    end: float
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Shape):
            raise ValueError(f"schedule {self.schedule!r} is unknown; one of {', '.join(get_args(Shape))}")
        for name in ("start", "end", "fraction"):
            if not _is_number(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, not {getattr(self, name)!r}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], not {self.fraction}")

    def value(self, progress: float) -> float:
        """The value when ``progress`` of the run, from 0 to 1 (clamped), is done."""
        moved = min(max(progress, 0.0) / self.fraction, 1.0)
        if self.schedule == "constant" or moved == 1.0:
            return float(self.end)
        if self.schedule == "cosine":
            moved = 0.5 * (1.0 - math.cos(math.pi * moved))
        return self.start * (1.0 - moved) + self.end * moved

    def require(self, name: str, *, least: float = -math.inf, most: float = math.inf) -> None:
        """Refuse a schedule that leaves ``[least, most]`` anywhere in the run; it never leaves that of its two ends.

        Raises:
            ValueError: naming the option ``name``.
        """
        for value in (self.value(0.0), self.value(1.0)):
            if not least <= value <= most:
                bounds = f"at least {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"
                raise ValueError(f"{name} must be {bounds} throughout the run, not {value}")


DEFAULTS: dict[str, dict[str, float]] = {
    "constant": {},
    "linear": {},
    "cosine": {},
    "warmup": {"start": 0.0, "fraction": 0.1},
}
"""What a schedule of each shape may leave out beside ``fraction``."""


def parse_schedule(value: float | Mapping[str, Any] | Schedule) -> Schedule:
    """Read a number or a mapping as a schedule.

    A number is constant. A mapping names its shape: ``{schedule: constant, end: 4}``, ``{schedule: linear,
    start: 8, end: 1}``, ``{schedule: cosine, start: 8, end: 1, fraction: 0.5}``, ``{schedule: warmup, end:
    1, fraction: 0.2}`` (from 0, over the first tenth of the run, unless it says otherwise).

    Raises:
        ValueError: anything else, saying what is wrong and what would be right.
    """
    if isinstance(value, Schedule):
        return value
    if _is_number(value):
        return Schedule(end=float(value))  # type: ignore[arg-type]
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{value!r} is neither a finite number nor a schedule such as {{schedule: linear, start: 8, end: 1}}"
        )
    known = [each.name for each in fields(Schedule)]
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"a schedule has no field {name!r}; {hint}")
    shape = value.get("schedule")
    if not isinstance(shape, str) or shape not in DEFAULTS:
        raise ValueError(f"schedule {shape!r} is unknown; one of {', '.join(DEFAULTS)}")
    needed = ["end"] if shape in ("constant", "warmup") else ["start", "end"]
    missing = [name for name in needed if name not in value]
    if missing:
        raise ValueError(f"schedule '{shape}' needs {' and '.join(missing)}")
    if shape == "constant" and set(value) - {"schedule", "end"}:
        raise ValueError("schedule 'constant' takes only end; write 'linear' or 'cosine' for a value that moves")
    return Schedule(**{**DEFAULTS[shape], **value})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
