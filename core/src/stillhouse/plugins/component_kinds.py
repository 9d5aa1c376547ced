"""The table of kinds of components, which hooks, command line, recipes' schema, contract and scaffold follow."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.plugins.spec import Spec
from stillhouse.plugins.specs import (
    AugmenterSpec,
    DatasetSpec,
    HeadSpec,
    MethodSpec,
    MetricSpec,
    ObjectiveSpec,
    RecipeSpec,
    StudentSpec,
    TeacherSpec,
)


@dataclass(frozen=True, kw_only=True)
class ComponentKind:
    """What the framework knows of a kind of component; the hooks, the ``--kind`` choices, the schema of recipes, the
    checks of the contract and the templates of new plugins all follow from it.

    Args:
        spec: class of its specs.
        given: positional arguments that the framework gives to a target; None when the target is a file.
        fields: fields of a recipe that name one component of this kind, or a list of them.
        checks: ``"module:function"`` below `stillhouse.testing` that plans the checks that run a component; empty when
            only what it declares is checked.
    """

    spec: type[Spec]
    given: int | None
    fields: tuple[str, ...] = ()
    checks: str = ""

    @property
    def name(self) -> str:
        """The kind, e.g. ``"dataset"``."""
        return self.spec.kind

    @property
    def plural(self) -> str:
        """Its plural, e.g. ``"datasets"``."""
        return f"{self.name}s"

    @property
    def hook(self) -> str:
        """Hook that gives its specs, e.g. ``"stillhouse_datasets"``; declared in `stillhouse.plugins.hookspecs`."""
        return f"stillhouse_{self.plural}"


KINDS: dict[str, ComponentKind] = {
    kind.name: kind
    for kind in (
        ComponentKind(spec=DatasetSpec, given=1, fields=("dataset",), checks="datasets:plan_dataset"),
        ComponentKind(spec=AugmenterSpec, given=0, fields=("extra_rows",), checks="augmenters:plan_augmenter"),
        ComponentKind(spec=TeacherSpec, given=1, checks="models:plan_model"),
        ComponentKind(spec=StudentSpec, given=1, fields=("student", "controls"), checks="models:plan_model"),
        ComponentKind(spec=HeadSpec, given=1, fields=("head",), checks="judges:plan_head"),
        ComponentKind(spec=ObjectiveSpec, given=0, checks="measures:plan_objective"),
        ComponentKind(spec=MethodSpec, given=0, fields=("method",), checks="methods:plan_method"),
        ComponentKind(spec=MetricSpec, given=0, fields=("metrics",), checks="measures:plan_metric"),
        ComponentKind(spec=RecipeSpec, given=None, checks="recipes:plan_recipe"),
    )
}
"""Every kind of component, in the order in which plugins list them."""
NAMED_KINDS = ("teacher", "student", "objective", "method", "metric", "augmenter")
"""Kinds of which a recipe may name a component by its import target, ``package.module:Attribute``, without a spec."""
