"""Drift of a stream, told by river's detectors from the loss of one row after the other."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from stillhouse.errors import require_package

Detector = Literal["none", "adwin", "page-hinkley", "kswin"]
NAMES = {"adwin": "ADWIN", "page-hinkley": "PageHinkley", "kswin": "KSWIN"}
RECENT = 30
"""Rows whose mean loss is held against that of all since the last drift."""


def require_river() -> None:
    """Refuse to go on without river.

    Raises:
        MissingDependencyError: it is not installed; with the command that installs it.
    """
    require_package(
        "river", "drift is told by the package 'river'", where="method.drift", fix="pip install 'stillhouse[stream]'"
    )


class DriftAlarm:
    """Rows at which a detector sees the loss rise. A change to smaller losses, which detectors tell too, is no alarm.

    Sources: ADWIN: Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing" (2007); Page-Hinkley:
    Page, "Continuous Inspection Schemes" (1954); KSWIN: Raab, Heusinger and Schleif, "Reactive Soft Prototype Computing
    for Concept Drift Streams" (2020). All are river's, with its settings.

    Args:
        name: the detector.
        seed: of KSWIN's sample.

    Raises:
        MissingDependencyError: river is not installed.
    """

    def __init__(self, name: Detector, seed: int) -> None:
        self._detector: Any = None
        self._losses: list[float] = []
        if name != "none":
            require_river()
            by_name: dict[str, dict[str, Any]] = {"kswin": {"seed": seed}, "page-hinkley": {"mode": "up"}}
            options = by_name.get(name, {})
            self._detector = getattr(importlib.import_module("river.drift"), NAMES[name])(**options)

    def __call__(self, losses: Sequence[float]) -> list[int]:
        """Positions in ``losses`` at which drift is told; none without a detector."""
        found: list[int] = []
        if self._detector is None:
            return found
        for position, loss in enumerate(losses):
            self._losses.append(float(loss))
            self._detector.update(float(loss))
            if self._detector.drift_detected:
                if np.mean(self._losses[-RECENT:]) > np.mean(self._losses):
                    found.append(position)
                self._losses = []
        return found
