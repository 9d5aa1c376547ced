"""Checks of the recipes that a plugin ships."""

from __future__ import annotations

from collections.abc import Iterator

from stillhouse.errors import MissingDependencyError, RecipeError
from stillhouse.plugins.checks import Planned, Pointless, Skipped, label
from stillhouse.plugins.manager import CORE
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import DatasetSpec, RecipeSpec
from stillhouse.recipe.check import resolve
from stillhouse.testing.tiny import run_tiny
from stillhouse.testing.workbench import Workbench

NEEDED = ("target", "shape", "options", "data", "disjoint", "copies", "forward", "state", "loss", "metrics")
"""Checks of a recipe's components without which a run of it is pointless."""


def plan_recipe(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``valid`` and ``trains``."""
    where, spec = label(component), component.spec
    assert isinstance(spec, RecipeSpec)
    yield Planned(id=f"valid[{where}]", verify=lambda: _valid(bench, component, spec))
    yield Planned(id=f"trains[{where}]", verify=lambda: _trains(bench, component, spec))


def _valid(bench: Workbench, component: Component, spec: RecipeSpec) -> None:
    bench.require(component, "target", "shape")
    resolved = resolve(component.id, bench.manager.registry)
    foreign = [each for each in resolved.components().values() if each.plugin.name not in (CORE, bench.record.name)]
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
