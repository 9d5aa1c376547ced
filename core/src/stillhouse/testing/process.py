"""Checks that need a process of their own: light import, imports in any order, nothing left behind, and the core's
results unchanged."""

from __future__ import annotations

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
from stillhouse.plugins.manager import CORE
from stillhouse.plugins.records import PluginRecord
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import KINDS, load_target

TIMEOUT = 300
"""Seconds after which a process is given up."""


def plan_process(record: PluginRecord, module: Any, components: Sequence[Component]) -> list[Planned]:
    """``light-import``, ``import-order``, ``unregister`` and ``non-interference``; the core itself is only asked for
    the first two.

    Args:
        record: the plugin.
        module: its hook implementations.
        components: its components.
    """
    imported = functools.cache(lambda: _probe("import", *_request(record, module)))  # two checks look at it
    planned = [
        Planned(id="light-import", verify=lambda: _light(record, imported())),
        Planned(id="import-order", verify=lambda: _any_order(record, module, components)),
    ]
    if record.name != CORE:
        planned.append(Planned(id="unregister", verify=lambda: _unregister(record, imported())))
        planned.append(Planned(id="non-interference", verify=lambda: _unchanged(record, module)))
    return planned


def _light(record: PluginRecord, found: Mapping[str, Any]) -> str:
    if found["heavy"]:
        raise PluginError(
            f"importing the plugin imports {', '.join(found['heavy'])}",
            where=record.location,
            fix="import it in the modules that targets name: every command waits for the module of hooks",
        )
    return f"imported in {found['milliseconds']:.1f} ms"


def _any_order(record: PluginRecord, module: Any, components: Sequence[Component]) -> str:
    request, modules = _request(record, module), _modules(components)
    # One process tries all; what fails there may only dislike being imported twice, so that it gets one of its own.
    suspects = _probe("modules", *request, modules=modules)
    for name in suspects:
        for problem in _probe("modules", *request, modules=[name]).values():
            raise PluginError(
                f"'{name}', imported before the other modules, fails with {problem}",
                where=record.location,
                fix="break the circle: move what two modules need of each other into a third one that imports neither",
            )
    return f"{counted(len(modules), 'module')}"


def _modules(components: Sequence[Component]) -> list[str]:
    """Modules that the targets name and that other checks found to be there, each once."""
    found: dict[str, None] = {}
    for component in components:
        if KINDS[component.kind].given is None:  # the target is a file
            continue
        for field in ("target", "reader", "sample", "features", "rules"):
            if target := getattr(component.spec, field, ""):
                try:
                    load_target(target, who=component.id)
                except Exception:  # the check of the target reports it
                    continue
                found[target.partition(":")[0]] = None
    return list(found)


def _unregister(record: PluginRecord, found: Mapping[str, Any]) -> None:
    if found["left"]:
        raise PluginError(
            f"after the plugin is removed, this is not what it was: {', '.join(found['left'][:5])}",
            where=record.location,
            fix="change nothing outside of the plugin at import or in a hook; do it in the code that a run calls",
        )


def _unchanged(record: PluginRecord, module: Any) -> None:
    plain, given = _plain(), _probe("reference", *_request(record, module))
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
    with tempfile.TemporaryDirectory(prefix="stillhouse-") as folder:
        answer = Path(folder) / "answer.json"
        request = {"probe": probe, "name": name, "file": file, "folder": f"{folder}/run", "answer": str(answer)} | more
        environment = {key: value for key, value in os.environ.items() if not key.startswith("STILLHOUSE_")}
        environment |= {
            "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
            "STILLHOUSE_CACHE": f"{folder}/store",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "stillhouse.testing.probe"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=environment,
            check=False,
        )
        if done.returncode or not answer.exists():
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise PluginError(
                f"a fresh process with the plugin fails: {last[0]}",
                where=file or name,
                fix="make the module of hooks importable on its own, before anything else",
            )
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
