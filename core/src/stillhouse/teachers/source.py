"""The one thing that all teacher sources do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stillhouse.types import Batch, Outputs


class TeacherSource(Protocol):
    """``Outputs`` for a ``Batch``: float32 predictions without gradient, and tapped features where the source has
    them."""

    def __call__(self, batch: Batch) -> Outputs:
        """What the teacher says of the batch, on the batch's device."""


@runtime_checkable
class AskedTeacher(Protocol):
    """A `TeacherSource` that a component returns as it is: rules, a service, predictions of old. It is asked and never
    trained, saved or timed; its outputs are kept by row id and revision.

    Attributes:
        revision: changes whenever its answers may; outputs of another revision are asked for again.
    """

    revision: str

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`; predictions have the shape of the head's output kind, and no gradient."""
