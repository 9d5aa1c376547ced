"""A recipe with its components: what `stillhouse.recipe.check` makes of a recipe that it finds nothing wrong with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from stillhouse.kinds import OutputKind
from stillhouse.plugins.component_kinds import KINDS
from stillhouse.plugins.options import validate_options
from stillhouse.plugins.registry import Component, Registry
from stillhouse.plugins.specs import HeadSpec, MethodSpec, ObjectiveSpec
from stillhouse.recipe.model import (
    ComponentRef,
    Recipe,
    Scheduled,
    SoftTerm,
    TeacherConfig,
    TeacherMember,
)


@dataclass(frozen=True)
class Bound:
    """A component with the options that the recipe gives it, defaults filled in.

    Attributes:
        component: which one.
        options: all of its options.
        ref: the part of the recipe that names it without the options: its full id, and fields such as a weight.
        named: the students that the options of a method name.
    """

    component: Component
    options: Mapping[str, Any]
    ref: ComponentRef | SoftTerm
    named: tuple[Bound, ...] = ()

    @property
    def id(self) -> str:
        """The component's full id."""
        return self.component.id

    @property
    def weight(self) -> float:
        """Weight of a member of an ensemble of teachers; 1 for everything else."""
        return self.ref.weight if isinstance(self.ref, TeacherMember) else 1.0

    @property
    def seed(self) -> int | None:
        """Seed of a member of an ensemble of teachers, when it has one of its own."""
        return self.ref.seed if isinstance(self.ref, TeacherMember) else None

    def to_recipe(self) -> dict[str, Any]:
        """That part of the recipe with every default filled in, JSON-ready."""
        fields = self.ref.model_dump(mode="json", exclude_none=True)
        return {**fields, **to_jsonable_python(dict(self.options), fallback=str)}


def bind(registry: Registry, kind: str | tuple[str, ...], ref: ComponentRef | SoftTerm, *, use: str = "") -> Bound:
    """The component that ``ref`` names (or ``use``), with its options checked and filled in.

    Raises:
        StillhouseError: no such component, or options that it does not have.
    """
    component = registry.get(kind, use or ref.use)
    own = ref.model_dump(include=set(type(ref).model_fields))
    options = validate_options(component, ref.options, fields=_fields_beside(ref))
    return Bound(component, options, type(ref).model_validate({**own, "use": component.id}))


def _fields_beside(ref: ComponentRef | SoftTerm) -> set[str]:
    """Fields that a recipe takes beside the options of such a component."""
    teacher = set(TeacherConfig.model_fields) - {"members"} if isinstance(ref, TeacherMember) else set()
    return (set(type(ref).model_fields) | teacher) - {"use"}


@dataclass(frozen=True)
class BoundTerm:
    """A soft term: its objective, and the options that follow a schedule (at their start in ``bound``)."""

    bound: Bound
    scheduled: Mapping[str, Any]

    @property
    def spec(self) -> ObjectiveSpec:
        """The objective's spec."""
        spec = self.bound.component.spec
        assert isinstance(spec, ObjectiveSpec)
        return spec

    @property
    def weight(self) -> Scheduled:
        """Its weight inside the soft loss, a number or a schedule."""
        return self._term.weight

    @property
    def student(self) -> str | None:
        """Path of the student's module that it compares; None for the prediction."""
        return self._term.student

    @property
    def teacher(self) -> str | None:
        """Path of the teacher's module that it compares; None for the prediction."""
        return self._term.teacher

    @property
    def gather(self) -> bool:
        """It compares the rows of all processes."""
        return self._term.gather

    @property
    def _term(self) -> SoftTerm:
        assert isinstance(self.bound.ref, SoftTerm)
        return self.bound.ref

    def to_recipe(self) -> dict[str, Any]:
        """The term with every default filled in, JSON-ready; ``gather`` only where it is on, since no result of one
        process depends on it."""
        values = {**self.bound.to_recipe(), **self.scheduled}
        if not self.gather:
            values.pop("gather", None)
        return values


@dataclass(frozen=True)
class Size:
    """The student at another size than the recipe's own.

    Attributes:
        name: of its folder and in messages, ``student.width=8``.
        value: of the field.
        student: with that value.
    """

    name: str
    value: Any
    student: Bound


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe whose every part is known, fits the others, and has all options filled in."""

    recipe: Recipe
    base: Path
    head: Bound
    dataset: Bound
    teachers: tuple[Bound, ...]
    student: Bound
    method: Bound
    terms: tuple[BoundTerm, ...]
    metrics: tuple[Bound, ...]
    controls: tuple[Bound, ...] = ()
    extra_rows: Bound | None = None
    sizes: tuple[Size, ...] = ()

    @property
    def kind(self) -> OutputKind:
        """The head's output kind."""
        spec = self.head.component.spec
        assert isinstance(spec, HeadSpec)
        return spec.output

    @property
    def method_spec(self) -> MethodSpec:
        """What the method says of itself."""
        spec = self.method.component.spec
        assert isinstance(spec, MethodSpec)
        return spec

    def for_rows(self, rows: int) -> ResolvedRecipe:
        """The recipe whose training has numbers in place of ``auto``, for so many labelled training rows."""
        train = self.recipe.train
        found = {"teacher": train.teacher.for_rows(rows), "student": train.student.for_rows(rows)}
        if train.baseline is not None:
            found["baseline"] = train.of_baseline.for_rows(rows)
        known = train.model_copy(update=found)
        return replace(self, recipe=self.recipe.model_copy(update={"train": known}))

    def to_recipe(self) -> dict[str, Any]:
        """The recipe with every default filled in, options of components included, JSON-ready; reading it again gives
        the same run."""
        values = self.recipe.model_dump(mode="json")
        for field in (field for kind in KINDS.values() for field in kind.fields):
            bound = getattr(self, field)
            if bound is not None:
                values[field] = [each.to_recipe() for each in bound] if isinstance(bound, tuple) else bound.to_recipe()
        if self.recipe.train.baseline is None:
            del values["train"]["baseline"]
        else:
            values["train"]["baseline"] = self.recipe.train.of_baseline.model_dump(mode="json")
        teacher = self.recipe.teacher
        values["teacher"] = teacher.model_dump(
            mode="json", include=set(TeacherConfig.model_fields) - {"use", "members"}, exclude_none=True
        )
        if teacher.members:
            values["teacher"]["members"] = [member.to_recipe() for member in self.teachers]
        else:
            only = self.teachers[0].to_recipe()
            own = set(TeacherMember.model_fields) - {"use"}  # of an ensemble's members alone
            values["teacher"] |= {name: value for name, value in only.items() if name not in own}
        values["objectives"]["soft"] = [term.to_recipe() for term in self.terms]
        return values

    def components(self) -> dict[str, Component]:
        """Every component of the run by its role."""
        roles = {"head": self.head, "dataset": self.dataset, "student": self.student, "method": self.method}
        roles |= {"extra_rows": self.extra_rows} if self.extra_rows is not None else {}
        roles |= {f"method.student.{position}": student for position, student in enumerate(self.method.named)}
        roles |= {f"teacher.{position}": member for position, member in enumerate(self.teachers)}
        roles |= {f"objective.{position}": term.bound for position, term in enumerate(self.terms)}
        roles |= {f"metric.{position}": metric for position, metric in enumerate(self.metrics)}
        roles |= {f"control.{position}": control for position, control in enumerate(self.controls)}
        return {role: bound.component for role, bound in roles.items()}
