"""What the trials of a search vary, and the settings that they try first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stillhouse.data.splitting import share_of_few_groups
from stillhouse.tuning.bench import Bench
from stillhouse.tuning.budget import Budget
from stillhouse.tuning.space import (
    NONE,
    OWN,
    Changes,
    Dimension,
    SearchSpace,
    asked_dimensions,
    changed,
    declared_dimension,
    extra_dimensions,
    is_estimator,
    loss_dimensions,
    method_dimension,
)
from stillhouse.tuning.teachers import TEACHERS
from stillhouse.tuning.truths import Truths, estimator_sizes

FOLDS = 5
"""Folds of out-of-fold targets that are tried where a teacher overfits."""
OVERFIT = 1.5
"""Loss on held-out rows over loss on training rows from which out-of-fold targets are tried."""
OUT_OF_FOLD = "out of fold"
"""Name of the dimension that has them."""
TRAINING, ALONE = "training", "as for the student alone"
"""Name of the dimension of the student's training, and its label of what suited labels alone."""


def all_asked(bench: Bench, base: Mapping[str, Any], vary: Sequence[str]) -> list[Dimension]:
    """What the recipe and the user ask to vary, and the sizes of an estimator: nobody asked for a smaller tree, so that
    it takes the size that makes it best."""
    resolved, registry = bench.resolved, bench.registry
    asked = asked_dimensions(resolved, base, registry)
    asked += [declared_dimension(path, resolved, registry) for path in dict.fromkeys(vary)]
    sizes = [path for path in estimator_sizes(resolved) if path not in vary]
    return asked + [replace(declared_dimension(path, resolved, registry), size=False) for path in sizes]


def search_space(
    bench: Bench, base: Mapping[str, Any], asked: Sequence[Dimension], truths: Truths, budget: Budget
) -> SearchSpace:
    """All that trials vary, and the recipe that they begin with: its own, with a network's training that suits labels
    alone beside it. (The size of an estimator that suits them is one of those that vary.)"""
    start = base
    if not is_estimator(bench.resolved.student.component):
        start = changed(base, truths.training)
        start = changed(start, {"train.baseline": start["train"]["student"]})
    dimensions = [*training_dimension(base, start), *teacher_dimensions(bench, truths, budget)]
    return SearchSpace(start, [*dimensions, *other_dimensions(bench, asked, truths)])


def teacher_dimensions(bench: Bench, truths: Truths, budget: Budget) -> list[Dimension]:
    """The best teachers; and their outputs on rows that they did not learn from, where the best one overfits."""
    labels = {candidate.label: candidate.changes for candidate, _ in truths.teachers[:TEACHERS]}
    dimensions = [Dimension("teacher", labels)]
    # A teacher for each fold of each part costs; where the teacher does not overfit, it is for nothing.
    folds, overfits = bench.resolved.recipe.teacher.out_of_fold, (truths.overfit or 0) >= OVERFIT
    possible = share_of_few_groups(bench.views[0].splits.train, bench.head.kind, 2) <= 0.5
    seconds = sum(scores.seconds for _, scores in truths.teachers[:TEACHERS])
    if overfits and possible and budget.open(4 * seconds):
        values = sorted({0, folds or FOLDS})
        dimensions.append(Dimension(OUT_OF_FOLD, {str(value): {"teacher.out_of_fold": value} for value in values}))
    return dimensions


def training_dimension(base: Mapping[str, Any], trained: Mapping[str, Any]) -> list[Dimension]:
    """The student's training as labels alone want it, and the recipe's own; none where they are the same.

    Args:
        base: the recipe.
        trained: the recipe with what suited the student alone.
    """
    own, found = base["train"]["student"], trained["train"]["student"]
    if own == found:
        return []
    return [Dimension(TRAINING, {ALONE: {"train.student": found}, OWN: {"train.student": own}})]


def other_dimensions(bench: Bench, asked: Sequence[Dimension], truths: Truths) -> list[Dimension]:
    """Losses, method, extra rows, and what the recipe or the user asks for."""
    paths = {path for dimension in asked for path in ([dimension.path] if dimension.path else [dimension.name])}
    found = loss_dimensions(
        bench.resolved,
        bench.registry,
        paths,
        {candidate.label: candidate.changes for candidate, _ in truths.teachers[:TEACHERS]},
    )
    if "method" not in paths and not is_estimator(bench.resolved.student.component):
        found += method_dimension(bench.resolved, bench.registry)
    if not any(path.startswith("extra_rows") for path in paths):
        found += extra_dimensions(bench.resolved, bench.registry, bench.views)
    return [*found, *asked]


def starts(space: SearchSpace, alone: Changes) -> list[dict[str, Any]]:
    """Settings to try first: the recipe's own; those with the training, or the size, that suits labels alone; with
    little of the labels; with the best teacher; with extra rows.

    Args:
        space: what varies.
        alone: what suited the student alone, see `stillhouse.tuning.truths.Truths`.
    """

    def start(wanted: Mapping[str, str]) -> dict[str, Any]:
        def pick(dimension: Dimension) -> Any:
            if dimension.range is not None:
                return _start_of(space.recipe, dimension)
            labels = list(dimension.labels)
            own = next((label for label in labels if label.startswith(OWN)), _own_label(space.recipe, dimension))
            want = wanted.get(dimension.name)
            return want if want in labels else own or labels[0]

        return space.choose(pick)

    labels = {dimension.name: list(dimension.labels) for dimension in space.dimensions}
    found = [start({}), start({TRAINING: ALONE, **{path: str(value) for path, value in alone.items()}})]
    found += [start({"alpha": "0.1"}), start({"alpha": "0.1", "teacher": labels["teacher"][0]})]
    found += [start({"alpha": "0.1", "extra rows": label}) for label in labels.get("extra rows", ()) if label != NONE]
    return [each for at, each in enumerate(found) if each not in found[:at]]


def _own_label(recipe: Mapping[str, Any], dimension: Dimension) -> str | None:
    """The label that changes nothing in the recipe."""
    for label, changes in dimension.labels.items():
        if all(_at(recipe, path) == value for path, value in changes.items()):
            return label
    return None


def _start_of(recipe: Mapping[str, Any], dimension: Dimension) -> Any:
    assert dimension.range is not None
    value = _at(recipe, dimension.path)
    inside = isinstance(value, int | float) and dimension.range.low <= value <= dimension.range.high
    if inside:
        return value
    middle = (
        float(np.sqrt(dimension.range.low * dimension.range.high))
        if dimension.range.log
        else (dimension.range.low + dimension.range.high) / 2
    )
    return round(middle) if dimension.range.whole else middle


def _at(recipe: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(recipe, Mapping):
            recipe = recipe.get(step)
        elif isinstance(recipe, Sequence) and step.isdigit() and int(step) < len(recipe):
            recipe = recipe[int(step)]
        else:
            return None
    return recipe
