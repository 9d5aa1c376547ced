"""Checks of the recipes that a plugin ships."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stillhouse.errors import MissingDependencyError, RecipeError
from stillhouse.plugins.checks import Planned, Pointless, Skipped, label
from stillhouse.plugins.manager import CORE
from stillhouse.plugins.records import PluginRecord
from stillhouse.plugins.registry import Component, Registry
from stillhouse.plugins.specs import DatasetSpec, RecipeSpec
from stillhouse.recipe.check import resolve

if TYPE_CHECKING:
    from stillhouse.testing.workbench import Workbench

NEEDED = ("target", "shape", "options", "data", "disjoint", "copies", "forward", "state", "loss", "metrics")
"""Checks of a recipe's components without which a run of it is pointless."""


def plan_recipe(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``valid`` and ``trains``."""
    where, spec = label(component), component.spec
    assert isinstance(spec, RecipeSpec)

    def valid() -> None:
        bench.require(component, "target", "shape")
        check_recipe(bench.manager.registry, bench.record, component)

    yield Planned(id=f"valid[{where}]", verify=valid)
    yield Planned(id=f"trains[{where}]", verify=lambda: _trains(bench, component, spec))


def check_recipe(registry: Registry, record: PluginRecord, component: Component) -> None:
    """A recipe of a plugin resolves with the core and the plugin alone, and is what its spec says.

    Raises:
        StillhouseError: it does not, or is not.
    """
    spec = component.spec
    assert isinstance(spec, RecipeSpec)
    resolved = resolve(component.id, registry)
    foreign = [each for each in resolved.components().values() if each.plugin.name not in (CORE, record.name)]
    if foreign:
        raise RecipeError(
            f"the recipe needs {foreign[0].label}, which is installed here by chance",
            where=component.id,
            fix="name components of the core and of the plugin itself",
        )
    dataset = resolved.dataset.component
    assert isinstance(dataset.spec, DatasetSpec)
    if spec.dataset and spec.dataset != dataset.id:
        raise RecipeError(
            f"the recipe uses the dataset '{dataset.id}', and its spec says '{spec.dataset}'",
            where=component.id,
            fix="correct RecipeSpec.dataset",
        )
    if spec.offline and not dataset.spec.offline:
        raise RecipeError(
            f"the spec says offline=True, and the dataset '{dataset.id}' is not offline",
            where=component.id,
            fix="correct offline in one of the two specs",
        )


def _trains(bench: Workbench, component: Component, spec: RecipeSpec) -> str:
    from stillhouse.testing.tiny import run_tiny  # which brings what trains; the other check does without

    bench.require(component, "valid")
    resolved = resolve(component.id, bench.manager.registry)
    changed = {}
    if not spec.offline:
        bench.usable(resolved.dataset.component)
        changed = {f"dataset__{name}": value for name, value in (bench.given(resolved.dataset.component) or {}).items()}
    for each in resolved.components().values():
        if each.plugin.name == bench.record.name:
            try:
                bench.require(each, *NEEDED)
            except Skipped as skipped:
                # A model that is skipped for want of a setting still runs where the recipe puts it.
                if isinstance(skipped, Pointless):
                    raise
    try:
        summary = run_tiny(component.id, manager=bench.manager, **changed)
    except MissingDependencyError as error:
        if spec.offline:
            raise
        raise Skipped(error.what, error.fix) from error  # an optional package, like the files that it needs
    return f"{summary['primary_metric']['name']} of {summary['dataset']['rows']['test']} test rows"
