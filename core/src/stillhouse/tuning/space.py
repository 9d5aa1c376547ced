"""What a search may change in a recipe: dimensions from its ``search`` field, from what components declare of their
options, and those that every distillation has."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stillhouse.errors import RecipeError, StillhouseError, nearest
from stillhouse.pipeline.extra_rows import add_extra_rows
from stillhouse.plugins.options import Option, options_of
from stillhouse.plugins.registry import Component, Registry
from stillhouse.plugins.specs import MethodSpec, ModelSpec, ObjectiveSpec
from stillhouse.ranges import Choices, Range, Space, parse_space
from stillhouse.recipe.check import resolve
from stillhouse.recipe.read import set_field
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.tuning.views import View

Changes = Mapping[str, Any]
"""Values by dotted path of a recipe."""
SEARCHED = "search"
"""Tag of the objectives and methods that a search tries without being asked to."""
ALPHAS = (0.0, 0.1, 0.3, 0.5, 0.7)
"""Shares of the hard loss that are tried."""
PER_ROW = (1.0, 3.0, 10.0)
"""Extra rows per training row that are tried."""
RATIOS = (1.0, 2.0, 4.0)
"""Unlabelled rows per labelled row of a step that are tried."""
OWN = "as in the recipe"
"""Label of what the recipe says itself."""
PLAIN = "predictions alone"
"""Label of the recipe's soft terms without those that compare features."""
NONE = "none"
"""Label of leaving something out."""


@dataclass(frozen=True)
class Dimension:
    """One thing that varies.

    Attributes:
        name: its name in the study.
        labels: changes to the recipe by the label of each choice; empty for a range.
        range: numbers to choose from, for the field ``path``.
        path: the field that a range sets.
        when: it exists only where these other dimensions have one of these labels.
        size: later labels, or larger numbers, make a larger model.
    """

    name: str
    labels: Mapping[str, Changes] = field(default_factory=dict)
    range: Range | None = None
    path: str = ""
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    size: bool = False

    def changes(self, value: Any) -> Changes:
        """What a chosen value changes in the recipe; numbers keep three digits."""
        if self.range is None:
            return self.labels[value]
        return {self.path: value if self.range.whole else float(f"{value:.3g}")}

    def describe(self) -> dict[str, Any]:
        """JSON-ready, for the record of a search."""
        values = str(self.range) if self.range is not None else list(self.labels)
        return {"name": self.name, "values": values, "when": {name: list(of) for name, of in self.when.items()}}


class SearchSpace:
    """The dimensions of a search, in the order in which they change the recipe.

    Args:
        recipe: the recipe that they change, as plain values.
        dimensions: later ones may depend on earlier ones.
    """

    def __init__(self, recipe: Mapping[str, Any], dimensions: Iterable[Dimension]) -> None:
        self.recipe, self.dimensions = recipe, tuple(dimensions)

    def choose(self, pick: Callable[[Dimension], Any]) -> dict[str, Any]:
        """A value for each dimension that exists, by ``pick``."""
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if all(chosen.get(name) in labels for name, labels in dimension.when.items()):
                chosen[dimension.name] = pick(dimension)
        return chosen

    def size_of(self, chosen: Mapping[str, Any]) -> float:
        """How large a model the chosen values make, against other values; 0 where no dimension is one of size."""
        total = 0.0
        for dimension in self.dimensions:
            if dimension.size and dimension.name in chosen:
                value = chosen[dimension.name]
                total += float(value) if dimension.range is not None else list(dimension.labels).index(value)
        return total

    def apply(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe with the chosen values, as plain values."""
        changes: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.name in chosen:
                changes |= dimension.changes(chosen[dimension.name])
        return changed(self.recipe, changes)


def changed(recipe: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """A copy of a recipe with fields set by path.

    Raises:
        RecipeError: a path leads nowhere.
    """
    copied = copy.deepcopy(dict(recipe))
    for path, value in changes.items():
        set_field(copied, path, copy.deepcopy(value), where=f"search, '{path}'")
    return copied


def declared(component: Component) -> dict[str, Space]:
    """The useful values that a component declares of its options: ``Annotated[float, Range(1, 8)]``."""
    found: dict[str, Space] = {}
    for option in options_of(component.load()):
        if (space := _space_of(option)) is not None:
            found[option.name] = space
    return found


def _space_of(option: Option) -> Space | None:
    marks = getattr(option.annotation, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Range | Choices)), None)


def asked_dimensions(resolved: ResolvedRecipe, recipe: Mapping[str, Any], registry: Registry) -> list[Dimension]:
    """A dimension for each field in the recipe's ``search``.

    Raises:
        RecipeError: a field that no run reads, one that a search cannot change, or a value that it does not take.
    """
    found = []
    for path, given in resolved.recipe.search.items():
        if path == "teacher":
            continue  # teachers are compared before any trial
        where = f"search, '{path}'"
        top = path.partition(".")[0]
        if top not in type(resolved.recipe).model_fields:
            raise RecipeError(
                f"'{top}' is not a field of a recipe", where=where, fix=nearest(top, type(resolved.recipe).model_fields)
            )
        if top in (
            "name",
            "summary",
            "head",
            "dataset",
            "data_seed",
            "seeds",
            "evaluate",
            "metrics",
            "device",
            "search",
        ):
            raise RecipeError(
                f"'{top}' is the same for every trial",
                where=where,
                fix="search fields of teacher, student, method, objectives, extra_rows or train",
            )
        dimension = _dimension(path, path, parse_space(given))
        ends = (
            [{path: each} for each in (dimension.range.low, dimension.range.high)]
            if dimension.range
            else [*dimension.labels.values()]
        )
        for changes in ends:
            try:
                resolve(changed(recipe, changes), registry)
            except StillhouseError as error:
                raise RecipeError(
                    f"{next(iter(changes.values()))!r} is not a value of '{path}': {error.what}",
                    where=where,
                    fix=error.fix,
                ) from error
        found.append(dimension)
    return found


def declared_dimension(path: str, resolved: ResolvedRecipe, registry: Registry) -> Dimension:
    """A dimension for an option whose component declares its useful values, e.g. ``student.width``.

    Raises:
        RecipeError: the component declares none for it.
    """
    part, _, option = path.rpartition(".")
    bounds = {"student": resolved.student, "method": resolved.method}
    bounds |= {f"objectives.soft.{position}": term.bound for position, term in enumerate(resolved.terms)}
    bounds |= {"teacher": resolved.teachers[0]} if len(resolved.teachers) == 1 else {}
    bounds |= {"extra_rows": resolved.extra_rows} if resolved.extra_rows is not None else {}
    if part not in bounds:
        raise RecipeError(
            f"'{path}' is not an option of a component",
            where="--vary",
            fix=f"one of {', '.join(bounds)}, with an option",
        )
    spaces = declared(bounds[part].component)
    if option not in spaces:
        known = ", ".join(f"{part}.{name}" for name in spaces) or "none"
        raise RecipeError(
            f"'{bounds[part].id}' does not say which values of '{option}' are useful (it does for: {known})",
            where="--vary",
            fix=f"write them into the recipe: search: {{{path}: [...]}}",
        )
    return _dimension(path, path, spaces[option])


def loss_dimensions(
    resolved: ResolvedRecipe, registry: Registry, asked: set[str], teachers: Mapping[str, Changes]
) -> list[Dimension]:
    """Alpha, the objective and its declared options; for an estimator, which learns from mixed targets, alpha and the
    temperature.

    Terms that compare features go with teachers that are of the component whose modules they name, and no ensemble;
    with other teachers there are the objectives of predictions.

    Args:
        resolved: the recipe.
        registry: where other objectives are found.
        asked: fields that the recipe's ``search`` has already.
        teachers: the labels of the teachers, and what they change.
    """
    dimensions = []
    if "objectives.alpha" not in asked:
        values = sorted({*ALPHAS, *([a] if isinstance(a := resolved.recipe.objectives.alpha, float) else [])})
        shown: dict[str, Changes] = {f"{value:g}": {"objectives.alpha": value} for value in values}
        if isinstance(a, dict):
            shown = {OWN: {"objectives.alpha": a}, **shown}
        dimensions.append(Dimension("alpha", shown))

    own = [term.to_recipe() for term in resolved.terms]
    plain = [term for term in own if term.get("student") is None] or [{"use": "soft"}]
    components = {OWN: resolved.terms[0].bound.component} if len(own) == 1 else {}
    labels: dict[str, Changes] = {}
    if not is_estimator(resolved.student.component) and not any(path.startswith("objectives.soft") for path in asked):
        for component in registry.components("objective"):
            if _compares_predictions(component, resolved) and [component.id] != [term["use"] for term in own]:
                labels[component.id] = {"objectives.soft": [{"use": component.id}]}
                components[component.id] = component
    if plain == own:
        return dimensions + _objectives("objective", {OWN: {"objectives.soft": own}, **labels}, components, asked, {})
    # A recipe with terms that compare features.
    labels = {PLAIN: {"objectives.soft": plain}, **labels}
    single = resolved.teachers[0].id if len(resolved.teachers) == 1 else ""
    same = tuple(label for label, changes in teachers.items() if changes["teacher"].get("use") == single)
    others = tuple(label for label in teachers if label not in same)
    if same:
        choices = {OWN: {"objectives.soft": own}, **labels}
        dimensions += _objectives("objective", choices, components, asked, {"teacher": same})
    if others:
        dimensions += _objectives("objective of predictions", labels, components, asked, {"teacher": others})
    return dimensions


def _compares_predictions(component: Component, resolved: ResolvedRecipe) -> bool:
    spec = component.spec
    assert isinstance(spec, ObjectiveSpec)
    suits = resolved.kind in spec.kinds and resolved.kind not in spec.incompatible
    return spec.level == "prediction" and suits and SEARCHED in spec.tags


def _objectives(
    name: str,
    labels: Mapping[str, Changes],
    components: Mapping[str, Component],
    asked: set[str],
    when: Mapping[str, tuple[str, ...]],
) -> list[Dimension]:
    """A dimension of objectives, and one for each of their declared options."""
    found = [Dimension(name, labels, when=when)]
    for label, component in components.items():
        for option, space in declared(component).items() if label in labels else ():
            path = f"objectives.soft.0.{option}"
            if path not in asked:
                of = component.id if name == "objective" else f"{component.id}, {name}"
                found.append(_dimension(f"{of} {option}", path, space, when={name: (label,)}))
    return found


def extra_dimensions(resolved: ResolvedRecipe, registry: Registry, views: Sequence[View]) -> list[Dimension]:
    """Rows that only the teacher labels: none, or those of each augmenter that fits the inputs, with its declared
    options; and how many unlabelled rows a step has for each labelled one."""
    recipe = resolved.to_recipe()
    own = recipe.get("extra_rows")
    labels: dict[str, Changes] = {NONE: {"extra_rows": None}}
    if own:
        labels[OWN] = {"extra_rows": own}
    components = {}
    for component in registry.components("augmenter"):
        if own and own["use"] == component.id:
            components[OWN] = component
            continue
        try:
            trial = resolve(changed(recipe, {"extra_rows": {"use": component.id}}), registry)
            add_extra_rows(views[0].splits, trial)
        except StillhouseError:
            continue  # it does not fit these inputs
        labels[component.id] = {"extra_rows": {"use": component.id}}
        components[component.id] = component
    if len(labels) == 1:
        return []
    dimensions = [Dimension("extra rows", labels)]
    per_row = {f"{count:g}": {"extra_rows.per_row": count} for count in PER_ROW}
    dimensions.append(Dimension("extra rows a row", per_row, when={"extra rows": tuple(components)}))
    for label, component in components.items():
        for option, space in declared(component).items():
            name = f"{component.id} {option}"
            dimensions.append(_dimension(name, f"extra_rows.{option}", space, when={"extra rows": (label,)}))
    if not is_estimator(resolved.student.component):
        some = {} if views[0].splits.unlabelled is not None else {"extra rows": tuple(components)}
        ratios = {f"{ratio:g}": {"train.student.unlabelled_ratio": ratio} for ratio in RATIOS}
        dimensions.append(Dimension("unlabelled rows a step", ratios, when=some))
    return dimensions


def method_dimension(resolved: ResolvedRecipe, registry: Registry) -> list[Dimension]:
    """The recipe's method, and those that ask to be tried and serve the recipe as it is."""
    own = resolved.method.to_recipe()
    labels: dict[str, Changes] = {OWN: {"method": own}}
    for component in registry.components("method"):
        spec = component.spec
        assert isinstance(spec, MethodSpec)
        if SEARCHED not in spec.tags or component.id == resolved.method.id:
            continue
        try:
            resolve(changed(resolved.to_recipe(), {"method": {"use": component.id}}), registry)
        except StillhouseError:
            continue  # a method that does not serve this recipe is no candidate
        labels[component.id] = {"method": {"use": component.id}}
    return [Dimension("method", labels)] if len(labels) > 1 else []


def is_estimator(component: Component) -> bool:
    """The component is fitted, not trained by gradient steps."""
    return "estimator" in component.spec.tags


def fits_kind(component: Component, resolved: ResolvedRecipe) -> bool:
    """The model can produce the head's predictions, by what its spec says."""
    spec = component.spec
    return isinstance(spec, ModelSpec) and (not spec.kinds or resolved.kind in spec.kinds)


def _dimension(name: str, path: str, space: Space, *, when: Mapping[str, tuple[str, ...]] | None = None) -> Dimension:
    if isinstance(space, Range):
        return Dimension(name, range=space, path=path, when=when or {}, size=space.size)
    labels = {_label(value): {path: value} for value in space.values}
    return Dimension(name, labels, when=when or {}, size=space.size)


def _label(value: Any) -> str:
    if isinstance(value, Mapping) and "use" in value:
        rest = ", ".join(f"{name}={of}" for name, of in value.items() if name != "use")
        return f"{value['use']}{f' ({rest})' if rest else ''}"
    return str(value)
