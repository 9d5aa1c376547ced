"""The time that a search may take, over all the times that it was started."""

from __future__ import annotations

import math
import time
from pathlib import Path

from stillhouse.storage import read_json, write_json


class Budget:
    """Seconds, kept in a file so that a search that goes on has what is left.

    Args:
        path: the file.
        minutes: for the whole search; None: as long as it takes.
    """

    def __init__(self, path: Path, minutes: float | None) -> None:
        self._path, self._seconds = path, None if minutes is None else 60 * minutes
        self._before = float(read_json(path)["seconds"]) if path.exists() else 0.0
        self._began = time.monotonic()
        self.reserved = 0.0

    @property
    def limited(self) -> bool:
        """There is a limit."""
        return self._seconds is not None

    def spent(self) -> float:
        """Seconds so far, those of earlier starts included."""
        return self._before + time.monotonic() - self._began

    def spent_share(self) -> float:
        """Share of the time that is gone; 0 without a limit."""
        return 0.0 if self._seconds is None else (self.spent() + self.reserved) / self._seconds

    def share(self, seconds: float) -> float:
        """Share of the whole time that ``seconds`` are; 0 without a limit."""
        return 0.0 if self._seconds is None else seconds / self._seconds

    def seconds_of(self, share: float) -> float | None:
        """Seconds that a share of the whole time is; None without a limit."""
        return None if self._seconds is None else share * self._seconds

    def left(self, share: float) -> float:
        """Seconds until a share of the whole time is gone; endless without a limit."""
        return math.inf if self._seconds is None else share * self._seconds - self.spent()

    def reserve(self, seconds: float) -> None:
        """Keep so much for what comes after the trials."""
        self.reserved = seconds

    def open(self, seconds: float = 0.0) -> bool:
        """Whether something that takes about ``seconds`` may begin."""
        return self._seconds is None or self.spent() + self.reserved + seconds <= self._seconds

    def save(self) -> None:
        """Keep what was spent."""
        write_json(self._path, {"seconds": round(self.spent(), 1)})
