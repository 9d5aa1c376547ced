"""Components of all active plugins, found by id; nothing ever overrides anything."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.errors import (
    AmbiguousComponentError,
    MissingDependencyError,
    PluginError,
    UnknownComponentError,
)
from stillhouse.plugins.records import PluginRecord, Status
from stillhouse.plugins.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Component:
    """A spec together with the plugin that brings it.

    Args:
        id: ``plugin/name``; unique among the components of one kind.
        kind: one of `stillhouse.plugins.component_kinds.KINDS`.
        spec: what the plugin says of it.
        plugin: who brings it.
    """

    id: str
    kind: str
    spec: Spec
    plugin: PluginRecord

    @property
    def label(self) -> str:
        """The component and who brings it, for messages."""
        return f"{self.kind} '{self.id}' of plugin '{self.plugin.name}' ({self.plugin.source})"

    def load(self) -> Any:
        """Import the target: a class or callable, or the text of a recipe.

        Raises:
            MissingDependencyError: a package that the component needs is not installed.
            PluginError: the target cannot be imported; the message names plugin and distribution.
        """
        where = f"{self.label}, target '{self.spec.target}'"
        try:
            target = self.spec.load()
        except MissingDependencyError as error:
            fix = error.fix.format(distribution=self.plugin.distribution or self.plugin.name)
            raise MissingDependencyError(error.what, where=where, fix=fix) from error
        except PluginError as error:
            raise type(error)(error.what, where=where, fix=error.fix) from error
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.kind} '{self.id}' cannot be imported: {type(error).__name__}: {error}",
                where=where,
                fix=f"report it to the author of {self.plugin.source}; --debug shows the traceback",
            ) from error
        if self.spec.deprecated:
            warnings.warn(
                f"{self.label} is deprecated: write {self.spec.deprecated} instead",
                FutureWarning,
                stacklevel=2,
            )
        return target

    def describe(self) -> dict[str, Any]:
        """JSON-ready values: one entry of ``stillhouse components --json``."""
        described = self.spec.describe()
        first = ("summary", "tags")
        return {
            "id": self.id,
            "kind": self.kind,
            "summary": self.spec.summary,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "tags": described["tags"],
        } | {name: value for name, value in described.items() if name not in first and name != "name"}


class Registry:
    """The components of the active plugins, and what is known of the others (for messages)."""

    def __init__(self, components: Iterable[Component], records: Sequence[PluginRecord]) -> None:
        self._components = tuple(components)
        self._records = tuple(records)

    def components(self, kind: str | None = None) -> list[Component]:
        """All components, or those of one kind, sorted by kind and id."""
        chosen = [each for each in self._components if kind in (None, each.kind)]
        return sorted(chosen, key=lambda each: (each.kind, each.id))

    def get(self, kind: str | Sequence[str], name: str) -> Component:
        """The component of ``kind`` called ``name``, a full id or a bare name that only one plugin has.

        With several kinds (``("teacher", "student")``) the first kind that has the id wins.

        Raises:
            UnknownComponentError: there is none; the message has the nearest name, or its plugin's status.
            AmbiguousComponentError: a bare name that several plugins have.
        """
        kinds = (kind,) if isinstance(kind, str) else tuple(kind)
        if ":" in name and "recipe" not in kinds:
            return self._named(kinds, name)
        found = [each for wanted in kinds for each in self._components if each.kind == wanted and each.id == name]
        if not found and "/" not in name:
            found = [
                each for wanted in kinds for each in self._components if each.kind == wanted and each.spec.name == name
            ]
            ids = sorted({each.id for each in found})
            if len(ids) > 1:
                raise AmbiguousComponentError(
                    f"{' or '.join(kinds)} '{name}' is ambiguous: several plugins have one",
                    where=", ".join(f"{each.id} ({each.plugin.source})" for each in sorted(found, key=lambda c: c.id)),
                    fix=f"write one of {', '.join(ids)}",
                )
        if found:
            return found[0]
        raise self._unknown(kinds, name)

    def find(self, name: str) -> list[Component]:
        """Components of any kind called ``name``: a model may be a teacher and a student under one id.

        Raises:
            UnknownComponentError: there is none.
            AmbiguousComponentError: a bare name that several plugins have.
        """
        if ":" in name:
            return [self._named((), name)]
        kinds = sorted({each.kind for each in self._components})
        first = self.get(kinds, name)
        return [each for each in self.components() if each.id == first.id]

    def _named(self, kinds: Sequence[str], name: str) -> Component:
        from stillhouse.plugins.named import named_component  # needs what is above this module

        return named_component(kinds, name, self._records)

    def _unknown(self, kinds: tuple[str, ...], name: str) -> UnknownComponentError:
        what = f"no {' or '.join(kinds) if len(kinds) <= 2 else 'component'} '{name}'"
        known = {each.id for each in self._components if each.kind in kinds}
        others = [each for each in self._components if each.id == name or ("/" not in name and each.spec.name == name)]
        if others:
            other = others[0]
            using = [each.id for each in self._components if getattr(each.spec, "dataset", "") == other.id]
            of_dataset = other.kind == "dataset" and "recipe" in kinds and using
            fix = f"recipes with it: {', '.join(using)}" if of_dataset else _suggestion(name, known, kinds)
            return UnknownComponentError(f"{what}: '{other.id}' is a {other.kind}", fix=fix)
        prefix, slash, _ = name.partition("/")
        if not slash:
            return UnknownComponentError(what, fix=_suggestion(name, known, kinds))
        records = [each for each in self._records if each.name == prefix]
        if any(each.status is Status.ACTIVE for each in records):
            where = f"plugin '{prefix}' ({records[0].source})"
            return UnknownComponentError(what, where=where, fix=_suggestion(name, known, kinds))
        if records:
            first = records[0]
            return UnknownComponentError(
                f"{what}: plugin '{prefix}' is installed but {first.status}: {first.error}",
                where=", ".join(each.source for each in records),
                fix=first.fix,
            )
        plugins = {each.name for each in self._records}
        if close := difflib.get_close_matches(prefix, plugins, n=1, cutoff=0.75):
            own = {each for each in known if each.startswith(f"{close[0]}/")}
            hint = f": {_suggestion(close[0] + name[len(prefix) :], own, kinds)}" if own else ""
            return UnknownComponentError(
                f"{what}: no plugin '{prefix}' is installed", fix=f"the plugin is called '{close[0]}'{hint}"
            )
        return UnknownComponentError(
            f"{what}: plugin '{prefix}' is not installed",
            where=f"installed: {', '.join(sorted(plugins))}",
            fix=f"pip install stillhouse-{prefix.replace('_', '-')}",
        )


def _suggestion(name: str, known: set[str], kinds: tuple[str, ...]) -> str:
    """The nearest known id, the named plugin's first; else all while they are few, or how to list them."""
    prefix, _, bare = name.rpartition("/")
    of_plugin = {each for each in known if each.startswith(f"{prefix}/")}
    for ids in (of_plugin, known):
        by_name = {each.rpartition("/")[2]: each for each in sorted(ids)}
        if close := difflib.get_close_matches(bare, by_name, n=1, cutoff=0.6):
            return f"did you mean '{by_name[close[0]]}'?"
    # "mse" for 'core/teacher-mse': a word of the name.
    if len(words := sorted(each for each in known if bare in each.rpartition("/")[2].split("-"))) in (1, 2, 3):
        return f"did you mean {' or '.join(map(repr, words))}?"
    if known and len(known) <= 8:
        return f"known: {', '.join(sorted(known))}"
    if kinds == ("recipe",):
        return "list them with: stillhouse recipes"
    return "list them with: stillhouse components" + (f" --kind {kinds[0]}" if len(kinds) <= 2 else "")
