"""The student at other sizes than the recipe's own: checked before the teacher is trained, and what they tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, StillhouseError
from stillhouse.evaluation.measure import parameters
from stillhouse.evaluation.worth import AtSize, worth
from stillhouse.methods.losses import check_taps
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.judging import judge, model_bytes
from stillhouse.pipeline.student import size_folder
from stillhouse.trained import build, load


def check_sizes(context: RunContext) -> None:
    """Build the student at every size, which must be of different sizes.

    Raises:
        StillhouseError: a size cannot be built, or two networks have the same number of parameters (estimators have
            none before they are fitted).
    """
    resolved = context.resolved
    if resolved.recipe.sizes is None:
        return
    seen: dict[int | None, str] = {}
    own = f"{resolved.recipe.sizes.field}={_own_value(context)}"
    students = [(own, resolved.student), *((size.name, size.student) for size in resolved.sizes)]
    for name, bound in students:
        try:
            built = build(bound.component, bound.options, context.task(resolved.recipe.seeds[0]))
            check_taps(built, resolved.terms)
        except StillhouseError as error:
            raise type(error)(error.what, where=f"sizes, {name}", fix=error.fix) from error
        count = parameters(built.model) if built.is_network else None
        if count is not None and count in seen:
            raise RecipeError(
                f"'{seen[count]}' and '{name}' are students of the same size ({count} parameters)",
                where="sizes",
                fix="choose an option that changes the size of the student, such as its width",
            )
        seen[count] = name


def worth_of_sizes(context: RunContext) -> dict[str, Any] | None:
    """The ``worth`` of ``summary.json``: what distillation is worth in size; None when the recipe names no sizes."""
    recipe, folder, head = context.resolved.recipe, context.folder, context.head
    if recipe.sizes is None:
        return None
    folders = [(_own_value(context), True, folder / "baseline", folder / "student")]
    for size in context.resolved.sizes:
        folders.append((size.value, False, *(folder / size_folder(size, role) for role in ("baseline", "student"))))
    measured = {model: _costs(context, model) for _, _, *models in folders for model in models}
    # Bytes stand in where the parameters of one model are not known, since sizes must be of one kind.
    known = all(count is not None for costs in measured.values() for count, _ in costs)
    sizes = {
        model: [count if known and count is not None else size for count, size in costs]
        for model, costs in measured.items()
    }
    tested = [
        AtSize(value, own, sizes[baseline], sizes[student], _results(context, baseline), _results(context, student))
        for value, own, baseline, student in folders
    ]
    return worth(
        tested,
        field=recipe.sizes.field,
        measure="parameters" if known else "bytes",
        higher_is_better=head.higher_is_better,
    )


def _own_value(context: RunContext) -> Any:
    """The value that the recipe's own student has in the field that sets the size."""
    assert context.resolved.recipe.sizes is not None
    place: Any = {"student": context.resolved.student.to_recipe()}
    for step in context.resolved.recipe.sizes.field.split("."):
        place = place[int(step)] if isinstance(place, list) else place[step]
    return place


def _costs(context: RunContext, folder: Path) -> list[tuple[int | None, int]]:
    """Parameters and bytes of the model of each seed."""
    found = []
    for seed in context.resolved.recipe.seeds:
        path = folder / f"seed-{seed}"
        model = load(path, context.registry, context.splits.info).model
        found.append((parameters(model), model_bytes(path)))
    return found


def _results(context: RunContext, folder: Path) -> list[float]:
    seeds, primary = context.resolved.recipe.seeds, context.head.primary
    return [judge(context, folder / f"seed-{seed}", "test")[primary] for seed in seeds]
