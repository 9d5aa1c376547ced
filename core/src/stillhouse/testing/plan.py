"""All checks of a plugin, in order: those on what it declares, then those that run it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stillhouse.errors import StillhouseError, nearest
from stillhouse.plugins.checks import Check, Planned, Pointless, Report, chosen, label, plan_declared
from stillhouse.plugins.component_kinds import KINDS
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.reading import read
from stillhouse.plugins.records import PluginRecord, Status
from stillhouse.plugins.registry import Component
from stillhouse.plugins.spec import load_target

if TYPE_CHECKING:
    from stillhouse.testing.workbench import Workbench


class Plan:
    """The checks of one plugin.

    Args:
        manager: where the plugin is.
        record: the plugin.
        quick: only what the plugin declares, its recipes included; nothing is made, trained, or started in another
            process.
        options: options that stand for the defaults, by component id (``law/cases`` or ``dataset:law/cases``).

    Attributes:
        record: the plugin.
        components: how many components it has.
        ids: id of every check, in order.

    Raises:
        StillhouseError: options for a component that the plugin does not have.
    """

    def __init__(
        self,
        manager: Manager,
        record: PluginRecord,
        *,
        quick: bool = False,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.record = record
        self.components = len(manager.components_of(record))
        self._manager, self._options = manager, dict(options or {})
        known = {label(each) for each in manager.components_of(record)} | set(record.components)
        for name in self._options:
            if name not in known:
                raise StillhouseError(
                    f"options are given for '{name}', which plugin '{record.name}' does not have",
                    where="options",
                    fix=nearest(name, sorted(known)),
                )
        self._planned = {each.id: each for each in plan_declared(manager, record, read=quick)}
        self._bench: Workbench | None = None
        if quick and record.status is Status.ACTIVE:
            self._planned |= {each.id: each for each in self._recipes()}
        if not quick and record.status is Status.ACTIVE:
            from stillhouse.testing.workbench import Workbench

            self._bench = Workbench(manager, record, self._options, self._planned)
            self._planned |= {each.id: each for each in self._running(self._bench)}
        self.ids = tuple(self._planned)

    def run(self, check_id: str) -> Check:
        """Run one check; each runs once, also when others build on it."""
        return self._bench.run(check_id) if self._bench is not None else self._planned[check_id].run()

    def report(self) -> Report:
        """Run all checks."""
        return Report(record=self.record, components=self.components, checks=tuple(self.run(each) for each in self.ids))

    def _recipes(self) -> Iterator[Planned]:
        """``valid`` of each recipe: nothing has to be made or trained for it."""

        def verify(component: Component) -> None:
            from stillhouse.testing.recipes import check_recipe

            for name in ("target", "shape"):
                if self._planned[check_id := f"{name}[{label(component)}]"].run().outcome == "failed":
                    raise Pointless(check_id)
            check_recipe(read(self._manager.registry), self.record, component)

        for component in self._manager.components_of(self.record):
            if component.kind == "recipe":
                yield Planned(id=f"valid[{label(component)}]", verify=functools.partial(verify, component))

    def _running(self, bench: Workbench) -> Iterator[Planned]:
        from stillhouse.testing.process import ProcessChecks

        own = self._manager.components_of(self.record)
        process = ProcessChecks(self.record, self._manager.implementations(self.record), own)
        yield from process.early()
        for kind in KINDS.values():
            if kind.checks:
                plan = load_target(f"stillhouse.testing.{kind.checks}", who=f"kind '{kind.name}'")
                for component in bench.components(kind.name):
                    yield from plan(bench, component)
        yield from process.late()


def check_all(manager: Manager, name: str | None = None, *, quick: bool = False) -> list[Report]:
    """Check the plugin ``name`` (or the one whose source is at that path), or all that are not disabled.

    Raises:
        UnknownComponentError: there is no such plugin.
    """
    return [Plan(manager, each, quick=quick).report() for each in chosen(manager, name)]
