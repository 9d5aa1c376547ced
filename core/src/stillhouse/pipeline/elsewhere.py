"""What a method is given, made again in another process: clients of a federated method work with it there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.progress import Silent

if TYPE_CHECKING:
    from stillhouse.methods import MethodContext


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Makes a `MethodContext` again, without teachers; it can be pickled.

    Args:
        manager: arguments of the plugin manager; None for the installed plugins.
        recipe: plain values of the recipe.
        base: folder that the recipe's paths are relative to.
        run: the run folder.
        student: reference of the student, an id or ``{"use": id, **options}``.
        seed: seed of the student.
        label: what to call it.
        folder: of this student.
    """

    manager: Mapping[str, Any] | None
    recipe: Mapping[str, Any]
    base: str
    run: str
    student: Any
    seed: int
    label: str
    folder: str

    def __call__(self) -> MethodContext:
        """The context, with rows that are made anew.

        Raises:
            StillhouseError: the recipe cannot be opened in that process.
        """
        from stillhouse.pipeline.opening import reopen_context
        from stillhouse.pipeline.student import method_context

        context = reopen_context(
            manager=self.manager, recipe=self.recipe, base=self.base, folder=self.run, reporter=Silent()
        )
        return method_context(
            context,
            context.bind("student", self.student),
            None,
            config=context.resolved.recipe.train.student,
            seed=self.seed,
            label=self.label,
            tags={},
            folder=Path(self.folder),
        )
