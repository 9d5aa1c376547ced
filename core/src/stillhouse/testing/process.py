"""Checks that need a process of their own: light import, imports in any order, nothing left behind, and the core's
results unchanged."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import functools
import json
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.errors import PluginError
from stillhouse.plugins.checks import Planned, Skipped, counted
from stillhouse.plugins.component_kinds import KINDS
from stillhouse.plugins.manager import CORE
from stillhouse.plugins.records import PluginRecord
from stillhouse.plugins.registry import Component
from stillhouse.plugins.spec import load_target

TIMEOUT = 300
"""Seconds after which a process is given up."""


class ProcessChecks:
    """``light-import`` and ``unregister``, and later ``import-order`` and ``non-interference``, for which a process is
    started in the background as soon as the first is through; the core itself is asked for the imports only. A single
    file is imported only by commands that name it, and may import what it likes: it is not asked for ``light-import``.

    Args:
        record: the plugin.
        module: its hook implementations.
        components: its components.
    """

    def __init__(self, record: PluginRecord, module: Any, components: Sequence[Component]) -> None:
        self._record, self._module, self._components = record, module, components
        self._imported: dict[str, Any] | None = None
        self._both: _Process | None = None

    def early(self) -> list[Planned]:
        """The checks that take a moment."""
        planned = [] if self._record.is_file else [Planned(id="light-import", verify=self._light)]
        if self._record.name != CORE:
            planned.append(Planned(id="unregister", verify=self._unregister))
        return planned

    def late(self) -> list[Planned]:
        """The checks that take seconds in another process; best asked for last."""
        planned = [Planned(id="import-order", verify=self._any_order)]
        if self._record.name != CORE:
            planned.append(Planned(id="non-interference", verify=self._unchanged))
        return planned

    def _light(self) -> str:
        try:
            return _light(self._record, self._import())
        finally:
            self._begin()

    def _unregister(self) -> None:
        try:
            _unregister(self._record, self._import())
        finally:
            self._begin()

    def _import(self) -> dict[str, Any]:
        if self._imported is None:  # two checks look at it
            self._imported = _probe("import", *_request(self._record, self._module))
        return self._imported

    def _begin(self) -> _Process | None:
        """The process that answers for both late checks; None where processes cannot be forked."""
        if self._both is None and self._record.name != CORE and sys.platform == "linux":
            with contextlib.suppress(Skipped):
                name, file = _request(self._record, self._module)
                self._both = _Process("both", name, file, modules=_modules(self._components))
        return self._both

    def _late(self, name: str) -> dict[str, Any] | None:
        if (both := self._begin()) is None:
            return None
        found: dict[str, Any] = both.answer()[name]
        if set(found) == {"error"}:
            raise PluginError(
                f"a fresh process with the plugin fails: {found['error']}",
                where=self._record.location,
                fix="make the module of hooks importable on its own, before anything else",
            )
        return found

    def _any_order(self) -> str:
        request, modules = _request(self._record, self._module), _modules(self._components)
        # One process tries all; what fails there may only dislike being imported twice, so that it gets one of its own.
        suspects = self._late("modules")
        if suspects is None:
            suspects = _probe("modules", *request, modules=modules)
        for name in suspects:
            if not _is_there(self._components, name):
                continue  # the check of the target reports it
            for problem in _probe("modules", *request, modules=[name]).values():
                raise PluginError(
                    f"'{name}', imported before the other modules, fails with {problem}",
                    where=self._record.location,
                    fix="break the circle: move what two modules need of each other into a third one that imports "
                    "neither",
                )
        return f"{counted(len(modules), 'module')}"

    def _unchanged(self) -> None:
        given = self._late("given")
        if given is None:
            _unchanged(self._record, _plain(), _probe("reference", *_request(self._record, self._module)))
        else:
            plain = self._late("plain")
            assert plain is not None
            _unchanged(self._record, plain, given)


def _light(record: PluginRecord, found: Mapping[str, Any]) -> str:
    if found["heavy"]:
        raise PluginError(
            f"importing the plugin imports {', '.join(found['heavy'])}",
            where=record.location,
            fix="import it in the modules that targets name: every command waits for the module of hooks",
        )
    return f"imported in {found['milliseconds']:.1f} ms"


def _modules(components: Sequence[Component]) -> list[str]:
    """Modules that the targets name, each once."""
    return list(dict.fromkeys(target.partition(":")[0] for target in _targets(components)))


def _targets(components: Sequence[Component]) -> list[str]:
    importable = [each for each in components if KINDS[each.kind].given is not None]  # the others' target is a file
    fields = ("target", "reader", "sample", "features", "rules")
    return [target for each in importable for field in fields if (target := getattr(each.spec, field, ""))]


def _is_there(components: Sequence[Component], module: str) -> bool:
    """Whether a target in that module can be loaded here."""
    for target in _targets(components):
        if target.partition(":")[0] == module:
            with contextlib.suppress(Exception):
                load_target(target, who=module)
                return True
    return False


def _unregister(record: PluginRecord, found: Mapping[str, Any]) -> None:
    if found["left"]:
        raise PluginError(
            f"after the plugin is removed, this is not what it was: {', '.join(found['left'][:5])}",
            where=record.location,
            fix="change nothing outside of the plugin at import or in a hook; do it in the code that a run calls",
        )


def _unchanged(record: PluginRecord, plain: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    changed = [name for name in sorted(plain.keys() | given.keys()) if plain.get(name) != given.get(name)]
    if not changed:
        return
    lines = difflib.ndiff(plain["recipe.yaml"].splitlines(), given["recipe.yaml"].splitlines())
    shown = [" ".join(line.split()) for line in lines if line[0] in "+-"][:4]
    raise PluginError(
        f"a run of the core that does not name the plugin is another one when it is installed: {', '.join(changed[:3])}"
        + (f" ({'; '.join(shown)})" if shown else ""),
        where=record.location,
        fix="change no default, class or function of the core; bring a component of your own, and name it in recipes",
    )


def _request(record: PluginRecord, module: Any) -> tuple[str, str]:
    """Name and file by which another process finds the plugin."""
    if record.distribution:
        return record.name, ""
    if isinstance(module, types.ModuleType) and record.location:
        return record.name, record.location
    raise Skipped("another process cannot import it", "check an installed plugin, or a file")


@functools.cache
def _plain() -> dict[str, Any]:
    """The run without any plugin, made once."""
    return _probe("reference", "", "")


def _probe(probe: str, name: str, file: str, **more: Any) -> dict[str, Any]:
    """What `stillhouse.testing.probe` finds in a fresh process that imports from the same places as this one."""
    return _Process(probe, name, file, **more).answer()


class _Process:
    """A fresh process that was started, and answers when it is done."""

    def __init__(self, probe: str, name: str, file: str, **more: Any) -> None:
        self._who = file or name
        self._found: dict[str, Any] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="stillhouse-", ignore_cleanup_errors=True)
        folder = self._folder.name
        self._answer = Path(folder) / "answer.json"
        request = {"probe": probe, "name": name, "file": file, "folder": f"{folder}/run", "answer": str(self._answer)}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("STILLHOUSE_")}
        environment |= {
            "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
            "STILLHOUSE_CACHE": f"{folder}/store",
            "OMP_NUM_THREADS": "1",
        }
        asked, self._errors = Path(folder) / "request.json", Path(folder) / "errors.txt"
        asked.write_text(json.dumps(request | more), encoding="utf-8")
        with asked.open("rb") as given, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stillhouse.testing.probe"],
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
            )
        atexit.register(self._end)

    def answer(self) -> dict[str, Any]:
        """Wait for it.

        Raises:
            PluginError: it failed.
        """
        if self._found is None:
            try:
                self._process.wait(TIMEOUT)
                told = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                if self._process.returncode or not self._answer.exists():
                    last = told or [f"exit status {self._process.returncode}"]
                    raise PluginError(
                        f"a fresh process with the plugin fails: {last[0]}",
                        where=self._who,
                        fix="make the module of hooks importable on its own, before anything else",
                    )
                self._found = json.loads(self._answer.read_text(encoding="utf-8"))
            except subprocess.TimeoutExpired:
                raise PluginError(
                    f"a fresh process with the plugin was not done after {TIMEOUT} s", where=self._who
                ) from None
            finally:
                self._end()
        found: dict[str, Any] = self._found
        return found

    def _end(self) -> None:
        """Leave nothing behind, also where nobody waited for the answer."""
        atexit.unregister(self._end)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()
