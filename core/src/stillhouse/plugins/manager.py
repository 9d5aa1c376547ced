"""Finds the installed plugins, loads each in a transaction of its own, and keeps a record of every one.

pluggy's ``load_setuptools_entrypoints`` is not used: it stops at the first broken plugin, unnamed, and
drops the second of two distributions with the same entry-point name without a word.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import importlib
import os
import re
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pluggy

import stillhouse
from stillhouse.errors import PluginError, UnknownComponentError, nearest
from stillhouse.plugins import hookspecs
from stillhouse.plugins.deprecation import used_fields, warn
from stillhouse.plugins.loading import (
    Rejected,
    collect,
    guarded,
    import_entry_point,
    import_file,
    old_hooks,
    python_names,
)
from stillhouse.plugins.metadata import CORE_DISTRIBUTION, Installed, installed_plugins
from stillhouse.plugins.records import PluginRecord, Status
from stillhouse.plugins.registry import Component, Registry

NAME = re.compile(r"[a-z][a-z0-9_-]*")
CORE = "core"
ALLOW = "STILLHOUSE_PLUGINS"
STRICT = "STILLHOUSE_STRICT_PLUGINS"
NAMED_ONLY = "it has no hooks; a recipe names what is in it, as in 'use: {module}:Attribute'"


_LIVE: weakref.WeakSet[Manager] = weakref.WeakSet()


def live_managers() -> list[Manager]:
    """The managers of this process that are still in use; to find out whose code raised something."""
    return list(_LIVE)


class Manager:
    """The plugins of one process.

    Args:
        allow: names that may be active; None means all. ``core`` always is.
        disable: names that must not be imported.
        files: files of hook implementations to load as well, each as the plugin named by the file's stem; folders are
            put on the path only.
        path: folders in which distributions are looked for; None means ``sys.path``.
        installed: look for installed plugins at all.

    Attributes:
        records: every plugin, ``core`` first, then by name.
        warnings: what the user should know of the arguments, e.g. a disabled name that is not installed.
        registry: the components of the active plugins.
        arguments: what it was made with; ``Manager(**arguments)`` is an equal one in another process.
    """

    def __init__(
        self,
        *,
        allow: Collection[str] | None = None,
        disable: Collection[str] = (),
        files: Sequence[str | Path] = (),
        path: Sequence[str] | None = None,
        installed: bool = True,
    ) -> None:
        self.arguments: dict[str, Any] = {
            "allow": None if allow is None else sorted(allow),
            "disable": sorted(disable),
            "files": [str(file) for file in files],
            "path": None if path is None else list(path),
            "installed": installed,
        }
        _LIVE.add(self)
        self._allow, self._disable = allow, frozenset(disable)
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._records: list[PluginRecord] = []
        self._components: list[Component] = []
        self._requested: list[PluginRecord] = []
        found = installed_plugins(path) if installed else []
        self._add_core(next((each for each in found if _is_core(each)), None))
        found = [each for each in found if not _is_core(each)]
        counts = Counter(each.name for each in found)
        for each in found:
            self._add_installed(
                each, [other for other in found if other.name == each.name] if counts[each.name] > 1 else []
            )
        for file in files:
            self._requested.append(self.add_file(Path(file)))
        self.warnings = self._check_arguments()

    @classmethod
    def from_environment(
        cls, *, no_plugins: bool = False, disable: Collection[str] = (), files: Sequence[str | Path] = ()
    ) -> Manager:
        """A manager that heeds ``STILLHOUSE_PLUGINS``: comma-separated names; set but empty means none."""
        given = os.environ.get(ALLOW)
        allow = None if given is None else [name.strip() for name in given.split(",") if name.strip()]
        return cls(allow=[] if no_plugins else allow, disable=disable, files=files)

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """Every plugin, ``core`` first, then by name."""
        return tuple(sorted(self._records, key=lambda each: (each.name != CORE, each.name, each.distribution)))

    @property
    def registry(self) -> Registry:
        """The components of the active plugins."""
        return Registry(self._components, self.records)

    def plugin(self, name: str) -> list[PluginRecord]:
        """Records of the plugin (or distribution) ``name``; several when distributions conflict.

        Raises:
            UnknownComponentError: no such plugin is installed.
        """
        found = [each for each in self.records if each.name == name] or [
            each for each in self.records if each.distribution and each.distribution == name
        ]
        if not found:
            fix = nearest(name, {each.name for each in self.records})
            raise UnknownComponentError(f"no plugin '{name}' is installed", fix=fix)
        return found

    def components_of(self, record: PluginRecord) -> list[Component]:
        """Components that the plugin of ``record`` registered, in its own order."""
        return [each for each in self._components if each.plugin is record]

    def implementations(self, record: PluginRecord) -> Any:
        """The hook implementations of an active plugin: its module, or the object that was added."""
        return self._pluggy.get_plugin(record.name)

    def require_requested(self) -> None:
        """Refuse to go on when a plugin that the user named by ``--plugin FILE`` is not active.

        Raises:
            PluginError: with the cause and the fix of the first such file.
        """
        for record in self._requested:
            if record.status is not Status.ACTIVE:
                form = "folder" if record.is_folder else "file"
                raise PluginError(
                    f"plugin {form} '{record.location}' is {record.status}: {record.error}",
                    where=record.location,
                    fix=record.fix,
                )

    def require_all(self) -> None:
        """Refuse to go on while any installed plugin is neither active nor disabled.

        Raises:
            PluginError: with every such plugin, its distribution, its cause and its fix.
        """
        failed = [each for each in self.records if each.status not in (Status.ACTIVE, Status.DISABLED)]
        causes = [f"{each.name} ({each.source}) is {each.status}: {each.error}; {each.fix}" for each in failed]
        causes += [warning for warning in self.warnings if ALLOW in warning]
        if causes:
            raise PluginError(
                f"{len(causes)} plugin{'s' if len(causes) > 1 else ''} cannot be used, and {STRICT} is set:\n"
                + "\n".join(f"  - {cause}" for cause in causes),
                fix=f"fix or uninstall them, or name them in --disable-plugin, or unset {STRICT}",
            )

    def add(
        self, name: str, module: Any, *, distribution: str = "", version: str = "", location: str = ""
    ) -> PluginRecord:
        """Load the hook implementations of ``module`` as plugin ``name``, in one transaction.

        Returns:
            The record; its status says whether the plugin is active.
        """
        record = PluginRecord(
            name=name,
            distribution=distribution,
            version=version,
            location=location or str(getattr(module, "__file__", "") or ""),
            status=Status.ACTIVE,
        )
        if any(each.name == name and each.status is Status.ACTIVE for each in self._records):
            return self._keep(
                _failed(record, Status.CONFLICT, f"a plugin '{name}' is loaded already", "choose another name")
            )
        return self._load(record, lambda: module)

    def remove(self, name: str) -> None:
        """Forget the plugin ``name`` and all its components."""
        self._pluggy.unregister(name=name)
        self._records = [each for each in self._records if each.name != name]
        self._components = [each for each in self._components if each.plugin.name != name]

    def _add_core(self, found: Installed | None) -> None:
        record = PluginRecord(
            name=CORE,
            distribution=CORE_DISTRIBUTION,
            version=stillhouse.__version__,
            location=found.location if found else str(Path(stillhouse.__file__).parent.parent),
            editable=found is not None and found.editable,
            status=Status.ACTIVE,
        )
        loaded = self._load(record, lambda: importlib.import_module("stillhouse.components.builtin"))
        if loaded.status is not Status.ACTIVE:  # a defect of ours, not something a user can fix
            raise RuntimeError(f"the core's own components cannot be loaded: {loaded.error}")

    def _add_installed(self, found: Installed, rivals: list[Installed]) -> None:
        record = PluginRecord(
            name=found.name,
            distribution=found.distribution,
            version=found.version,
            location=found.location,
            editable=found.editable,
            requires_core=str(found.core_requirement or ""),
            status=Status.ACTIVE,
        )
        try:
            self._admit(record, found, rivals)
        except Rejected as rejected:
            self._keep(_failed(record, rejected.status, rejected.error, rejected.fix))
            return
        if found.core_requirement is None:
            note = f"{found.distribution} does not say which versions of {CORE_DISTRIBUTION} it works with"
            record = replace(record, warnings=(note,))
        self._load(record, lambda: import_entry_point(found))

    def _admit(self, record: PluginRecord, found: Installed, rivals: list[Installed]) -> None:
        """Everything that can be decided without importing the plugin."""
        name, source = record.name, record.source
        if name in self._disable:
            raise Rejected(
                Status.DISABLED, f"disabled by --disable-plugin {name}", f"leave out --disable-plugin {name}"
            )
        if self._allow is not None and name not in self._allow:
            raise Rejected(
                Status.DISABLED,
                _not_allowed(self._allow),
                f"leave out --no-plugins, or add {name} to {ALLOW}",
            )
        if found.problem:
            raise Rejected(Status.BROKEN, found.problem, f"reinstall {source}")
        if name == CORE or not NAME.fullmatch(name):
            why = "is reserved for the core" if name == CORE else "is not a plugin name"
            fix = f"tell the author of {source}: lower-case letters, digits, '-' and '_', and not '{CORE}'"
            raise Rejected(Status.INVALID, f"the entry-point name '{name}' {why}", fix)
        if rivals:
            sources = " and ".join(f"{each.distribution} {each.version}" for each in rivals)
            fix = f"keep one: pip uninstall {' or pip uninstall '.join(each.distribution for each in rivals)}"
            raise Rejected(Status.CONFLICT, f"{sources} both call their plugin '{name}'", fix)
        wanted = found.core_requirement
        if wanted is not None and not wanted.contains(stillhouse.__version__, prereleases=True):
            raise Rejected(
                Status.INCOMPATIBLE,
                f"{source} requires {CORE_DISTRIBUTION}{wanted}, and this is {stillhouse.__version__}",
                f"pip install --upgrade {found.distribution}, or pip install '{CORE_DISTRIBUTION}{wanted}'",
            )

    def add_file(self, file: Path) -> PluginRecord:
        """Load a file of hook implementations as the plugin named by its stem; or make what a folder holds importable.

        A file without hooks, and the modules of a folder, bring no components of their own: a recipe names what is in
        them by ``module:Attribute``. Of a folder nothing is imported before that.

        Returns:
            The record; its status says whether the plugin is active.
        """
        path = file.expanduser().absolute()
        if path.is_dir():
            return self._add_folder(path)
        record = PluginRecord(name=path.stem, distribution="", version="", location=str(path), status=Status.ACTIVE)
        try:
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            reason = error.strerror or str(error)
            return self._keep(
                _failed(record, Status.BROKEN, f"cannot be read: {reason}", "give the path of a Python file")
            )
        record = replace(record, sha256=digest)
        if path.suffix != ".py" or not path.stem.isidentifier() or not NAME.fullmatch(path.stem):
            fix = "rename it to lower-case letters, digits and '_', e.g. my_domain.py"
            return self._keep(_failed(record, Status.INVALID, f"'{path.name}' cannot name a plugin", fix))
        if path.stem == CORE or any(each.name == path.stem for each in self._records):
            fix = f"rename the file: a plugin '{path.stem}' is there already"
            return self._keep(_failed(record, Status.CONFLICT, f"the name '{path.stem}' is taken", fix))
        return self._load(record, lambda: import_file(path))

    def _add_folder(self, path: Path) -> PluginRecord:
        record = PluginRecord(name=path.name, distribution="", version="", location=str(path), status=Status.ACTIVE)
        names = python_names(path)
        if not names:
            fix = "give a package, or a folder with Python modules in it"
            return self._keep(_failed(record, Status.INVALID, "the folder holds no Python module", fix))
        parent = str(path.parent if names == {path.name} and (path / "__init__.py").exists() else path)
        # At the end, so that it shadows nothing; spawned workers inherit sys.path.
        if parent not in sys.path:
            sys.path.append(parent)
        return self._keep(replace(record, warnings=(NAMED_ONLY.format(module=min(names)),)))

    def _load(self, record: PluginRecord, get_module: Callable[[], Any]) -> PluginRecord:
        """Import the plugin and register all its components, or none."""
        start = time.perf_counter()
        try:
            with guarded("import", record.source):
                module = get_module()
            specs = collect(self._pluggy, module, record.name, record.source)
        except Rejected as rejected:
            record = _failed(record, rejected.status, rejected.error, rejected.fix)
            return self._keep(replace(record, load_ms=_since(start)))
        if not specs:
            note = NAMED_ONLY.format(module=record.name) if record.sha256 else "it brings no components"
            record = replace(record, warnings=(*record.warnings, note))
        for note in (*old_hooks(module), *used_fields(specs)):
            record = replace(record, warnings=(*record.warnings, note))
            warn(f"plugin '{record.name}' ({record.source}): {note}")
        ids = [f"{record.name}/{spec.name}" for spec in specs]
        record = replace(record, components=tuple(dict.fromkeys(ids)), load_ms=_since(start))
        self._components += [
            Component(id=component_id, kind=spec.kind, spec=spec, plugin=record)
            for component_id, spec in zip(ids, specs, strict=True)
        ]
        return self._keep(record)

    def _keep(self, record: PluginRecord) -> PluginRecord:
        self._records.append(record)
        return record

    def _check_arguments(self) -> list[str]:
        known = {each.name for each in self._records}
        given = [("--disable-plugin", name) for name in sorted(self._disable)]
        given += [(ALLOW, name) for name in sorted(self._allow or ())]
        notes = []
        for source, name in given:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                hint = f", did you mean '{close[0]}'?" if close else ""
                notes.append(f"{source} names '{name}', which is not installed{hint}")
        if CORE in self._disable:
            notes.append(f"--disable-plugin {CORE} has no effect: the core is always active")
        return notes


def _is_core(found: Installed) -> bool:
    return found.name == CORE and found.distribution == CORE_DISTRIBUTION


def _not_allowed(allow: Collection[str]) -> str:
    return f"not among the allowed plugins ({', '.join(sorted(allow))})" if allow else "plugins are switched off"


def _failed(record: PluginRecord, status: Status, error: str, fix: str) -> PluginRecord:
    return replace(record, status=status, error=error, fix=fix)


def _since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 2)


@functools.cache
def default_manager() -> Manager:
    """The manager of the Python API: all installed plugins, and what the environment says of them."""
    manager = Manager.from_environment()
    if strict():
        manager.require_all()
    return manager


def strict() -> bool:
    """Whether ``STILLHOUSE_STRICT_PLUGINS`` asks for every installed plugin to be active."""
    return os.environ.get(STRICT, "").strip().lower() not in ("", "0", "false", "no")


@contextlib.contextmanager
def using(module: Any, name: str = "") -> Iterator[Manager]:
    """An isolated manager with the core and the hook implementations of ``module``, and no installed plugin.

    Args:
        module: a module, or any object whose attributes are hook implementations.
        name: the plugin's id; by default the last part of the module's name.

    Raises:
        PluginError: the plugin does not keep the contract.
    """
    manager = Manager(installed=False)
    chosen = name or str(getattr(module, "__name__", "plugin")).rpartition(".")[2]
    record = manager.add(chosen, module)
    if record.status is not Status.ACTIVE:
        raise PluginError(
            f"plugin '{chosen}' is {record.status}: {record.error}", where=record.location, fix=record.fix
        )
    try:
        yield manager
    finally:
        manager.remove(chosen)
