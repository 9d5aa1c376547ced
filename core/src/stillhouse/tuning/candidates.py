"""Teachers that a search could try: the recipe's own, other models, larger students, variants and ensembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError, StillhouseError
from stillhouse.plugins.registry import Registry
from stillhouse.plugins.specs import TeacherSpec
from stillhouse.ranges import Choices, Range
from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import TeacherConfig
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.tuning.space import OWN, Changes, changed, declared, fits_kind, is_estimator

PREDICTIONS = {"objectives.soft": [{"use": "soft"}]}
"""Changes a recipe to losses that name no module, so that any teacher suits."""
ENSEMBLE = 5
"""Members of an ensemble of one model."""
VARIANTS = 6
"""Draws of a teacher's declared options."""
LARGER = 4
"""How many times the student's declared width a larger student has, as teacher."""


@dataclass(frozen=True)
class Candidate:
    """A teacher to try: a label, and what it changes in the recipe."""

    label: str
    changes: Changes


def own_teacher(resolved: ResolvedRecipe) -> Candidate:
    """The recipe's own; out-of-fold copies of it are a matter of the trials."""
    return Candidate(OWN, {"teacher": {**resolved.to_recipe()["teacher"], "out_of_fold": 0}})


def given_teachers(given: Any, recipe: Mapping[str, Any], registry: Registry) -> list[Candidate]:
    """The teachers that the recipe's ``search`` lists.

    Raises:
        RecipeError: it is no list, or one of them does not suit the recipe.
    """
    where = "search, 'teacher'"
    if not isinstance(given, list):
        raise RecipeError(f"{given!r} is no list of teachers", where=where, fix="search: {teacher: [{use: ...}, ...]}")
    found = []
    for each in given:
        teacher = {"use": each} if isinstance(each, str) else dict(each)
        label = ", ".join(f"{name}={value}" for name, value in teacher.items() if name != "use")
        candidate = Candidate(f"{teacher.get('use', 'members')}{f' ({label})' if label else ''}", {"teacher": teacher})
        try:
            resolve(changed(recipe, {**candidate.changes, **PREDICTIONS}), registry)
        except StillhouseError as error:
            raise RecipeError(f"teacher {each!r}: {error.what}", where=where, fix=error.fix) from error
        found.append(candidate)
    return found


def candidates(
    resolved: ResolvedRecipe, registry: Registry, training: Changes, recipe: Mapping[str, Any]
) -> list[Candidate]:
    """The recipe's own teacher, the other models that suit the head, and the student larger or several times."""
    own = resolved.to_recipe()
    found = [own_teacher(resolved)]
    plugin = resolved.teachers[0].id.partition("/")[0]
    names = {resolved.teachers[0].id} if len(resolved.teachers) == 1 else set()
    student = resolved.student
    for component in [*registry.components("teacher"), *registry.components("student")]:
        home = component.id.partition("/")[0]
        asked = isinstance(component.spec, TeacherSpec) and component.spec.asked
        known = component.id in names or component.id == student.id
        if home in ("core", plugin) and not asked and not known and fits_kind(component, resolved):
            if component.spec.requires or component.spec.deprecated:
                continue
            names.add(component.id)
            found.append(Candidate(component.id, {"teacher": {"use": component.id}}))
    if not is_estimator(student.component):
        # A student as teacher is trained as the student is.
        train = {**own["train"]["student"], **{path.rpartition(".")[2]: value for path, value in training.items()}}
        sizes = [name for name, space in declared(student.component).items() if space.size]
        if wide := {name: larger for name in sizes if (larger := _times(student.options[name])) is not None}:
            label = f"{student.id} ({', '.join(f'{name}={value}' for name, value in wide.items())})"
            found.append(Candidate(label, {"teacher": {**student.to_recipe(), **wide}, "train.teacher": train}))
        members = {"members": [{**student.to_recipe(), "count": ENSEMBLE}]}
        found.append(Candidate(f"{ENSEMBLE} x {student.id}", {"teacher": members, "train.teacher": train}))
    return [each for each in found if _resolves(recipe, each, registry)]


def _times(value: Any) -> Any:
    """A width, or several, ``LARGER`` times; None for what is no width."""
    if isinstance(value, list | tuple) and value:
        return [LARGER * each for each in value]
    return LARGER * value if isinstance(value, int | float) and not isinstance(value, bool) else None


def variants(registry: Registry, best: Candidate, *, seed: int) -> list[Candidate]:
    """The best teacher with draws of the options whose useful values it declares."""
    teacher = best.changes["teacher"]
    if "use" not in teacher:
        return []
    component = registry.get(("teacher", "student"), teacher["use"])
    spaces = declared(component)
    random = np.random.default_rng(seed)
    found: dict[str, Candidate] = {}
    for _ in range(VARIANTS if spaces else 0):
        drawn = {name: _draw(space, random) for name, space in spaces.items()}
        label = f"{component.id} ({', '.join(f'{name}={value}' for name, value in drawn.items())})"
        found[label] = Candidate(label, {**best.changes, "teacher": {**teacher, **drawn}})
    return list(found.values())


def _draw(space: Range | Choices, random: np.random.Generator) -> Any:
    if isinstance(space, Choices):
        return space.values[random.integers(len(space.values))]
    low, high = (np.log(space.low), np.log(space.high)) if space.log else (space.low, space.high)
    value = random.uniform(low, high)
    value = float(np.exp(value)) if space.log else float(value)
    return round(value) if space.whole else float(f"{value:.3g}")


def ensembles(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The best single teacher several times with other seeds, and the mean of the two best of unlike kinds."""
    single = [each for each in ranked if "use" in each.changes["teacher"]]
    if not single:
        return []
    best = single[0]
    found = [
        Candidate(
            f"{ENSEMBLE} x {best.label}",
            {**best.changes, "teacher": {"members": [{**_member(best), "count": ENSEMBLE}]}},
        )
    ]
    others = [each for each in single[1:] if _member(each)["use"] != _member(best)["use"]]
    # All members of an ensemble that are networks are trained with the same settings.
    alike = [each for each in others if each.changes.get("train.teacher") == best.changes.get("train.teacher")]
    if alike:
        members = {"members": [_member(best), _member(alike[0])]}
        found.append(Candidate(f"{best.label} + {alike[0].label}", {**best.changes, "teacher": members}))
    return found


def _member(candidate: Candidate) -> dict[str, Any]:
    """A single teacher as a member of an ensemble: its id and options alone."""
    own = set(TeacherConfig.model_fields) - {"use"}
    return {name: value for name, value in candidate.changes["teacher"].items() if name not in own}


def _resolves(recipe: Mapping[str, Any], candidate: Candidate, registry: Registry) -> bool:
    try:
        # Taps name modules of the recipe's own teacher; whether another one fits is asked without them.
        resolve(changed(recipe, {**candidate.changes, **PREDICTIONS}), registry)
    except StillhouseError:
        return False
    return True
