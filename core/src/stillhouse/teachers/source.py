"""The one thing that all teacher sources do."""

from __future__ import annotations

from typing import Protocol

from stillhouse.types import Batch, Outputs


class TeacherSource(Protocol):
    """``Outputs`` for a ``Batch``: float32 predictions without gradient, and tapped features where the source has
    them."""

    def __call__(self, batch: Batch) -> Outputs:
        """What the teacher says of the batch, on the batch's device."""
