"""The one thing that all teacher sources do."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from stillhouse.types import Batch, Outputs, Reader, Split


class TeacherSource(Protocol):
    """``Outputs`` for a ``Batch``: float32 predictions without gradient, and tapped features where the source has
    them."""

    def __call__(self, batch: Batch) -> Outputs:
        """What the teacher says of the batch, on the batch's device."""


@runtime_checkable
class AskedTeacher(Protocol):
    """A `TeacherSource` that a component returns as it is: rules, a service, predictions of old. It is asked and never
    trained, saved or timed; its outputs are kept by row id and revision. It may be a `PreparedTeacher` or a
    `CostedTeacher`, too.

    Attributes:
        revision: changes whenever its answers may; outputs of another revision are asked for again.
    """

    revision: str

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`; predictions have the shape of the head's output kind, and no gradient."""


@runtime_checkable
class PreparedTeacher(Protocol):
    """An `AskedTeacher` that wants to see training rows first, as examples for its questions."""

    def prepare(self, train: Split, reader: Reader | None) -> None:
        """Called once before it is asked.

        Args:
            train: the labelled training rows, and no others.
            reader: that of the dataset; it may put rows into words (`stillhouse.types.DescribingReader`).
        """


@runtime_checkable
class CostedTeacher(Protocol):
    """An `AskedTeacher` that knows what its answers cost and where they are poor."""

    def facts(self) -> dict[str, Any]:
        """What the answers so far cost: numbers by name (None where one is not known), kept as ``teacher.asked`` in
        the summary; those of an ensemble's members are added up."""

    def remarks(self) -> list[str]:
        """What the user should know of the answers so far."""
