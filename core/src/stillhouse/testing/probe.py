"""What a fresh process finds out about a plugin; started by `stillhouse.testing.process`, with a request on stdin.

``import``: the time that importing the plugin and calling its hooks takes, the heavy packages that come with it, and
what is different in the process after the plugin was removed. ``modules``: which of the modules that targets name
cannot be imported before all others. ``reference``: digests of a small run of the core. ``both``: the last two, and the
run without the plugin, where processes can be forked; torch and what comes with it is then imported once for all three.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "transformers",
    "scipy",
    "sklearn",
    "matplotlib",
    "torchvision",
    "torchaudio",
    "pyarrow",
    "PIL",
    "accelerate",
    "torchmetrics",
)
"""Packages that no module of hooks may import."""

REFERENCE: dict[str, Any] = {
    "name": "reference",
    "head": "core/multiclass",
    "dataset": {"use": "core/synthetic", "rows": 120, "unlabelled": 40},
    "teacher": {"use": "core/mlp", "hidden": [8]},
    "student": {"use": "core/mlp", "hidden": [4]},
    "objectives": {"soft": ["soft", "core/dist"]},
    "metrics": ["core/ece"],
    "train": {"teacher": {"epochs": 1}, "student": {"epochs": 2}},
    "seeds": [0],
    "device": "cpu",
}
"""A run that leaves everything else to the defaults, which a plugin could have changed."""


def manager_with(request: dict[str, str]) -> Any:
    """A manager with the plugin of the request: an installed one, a file, or none."""
    from stillhouse.plugins.manager import Manager

    if request["file"]:
        return Manager(installed=False, files=[request["file"]])
    return Manager(allow=[request["name"]] if request["name"] else [])


def probe_import(request: dict[str, str]) -> dict[str, Any]:
    """See the module."""
    from stillhouse.plugins import deprecation, loading, specs  # noqa: F401  what any plugin imports is not its own
    from stillhouse.plugins.manager import CORE, Manager
    from stillhouse.plugins.metadata import installed_plugins

    if request["name"] == CORE:
        return _probe_core()
    with_core = Manager(installed=False)
    if request["file"]:
        _import_packages_of(Path(request["file"]))
    else:
        found = next(each for each in installed_plugins() if each.name == request["name"])
    loaded, before = set(sys.modules), _world()
    names = [component.id for component in with_core.registry.components()]
    start = time.perf_counter()
    module = loading.import_file(Path(request["file"])) if request["file"] else loading.import_entry_point(found)
    with_core.add(request["name"], module)
    milliseconds = (time.perf_counter() - start) * 1000
    heavy = _heavy(set(sys.modules) - loaded)
    with_core.remove(request["name"])
    after = _world()
    left = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if names != [component.id for component in with_core.registry.components()]:
        left.append("components in the registry")
    return {"milliseconds": milliseconds, "heavy": heavy, "left": left}


def _import_packages_of(file: Path) -> None:
    """Import what a single file imports: it may import anything, and what others leave behind is not its doing."""
    for node in ast.parse(file.read_bytes()).body:
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        for name in names:
            with contextlib.suppress(Exception):  # importing the file says what is wrong
                importlib.import_module(name)


def _probe_core() -> dict[str, Any]:
    from stillhouse.plugins.manager import Manager

    start = time.perf_counter()
    Manager(installed=False)
    return {"milliseconds": (time.perf_counter() - start) * 1000, "heavy": _heavy(set(sys.modules)), "left": []}


def _heavy(modules: set[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in modules} & set(HEAVY))


def _world() -> dict[str, Any]:
    """What a plugin could change in a process, by name."""
    root = logging.getLogger()
    world: dict[str, Any] = {f"os.environ['{name}']": value for name, value in os.environ.items()}
    world |= {
        "sys.meta_path": [id(each) for each in sys.meta_path],
        "sys.path_hooks": [id(each) for each in sys.path_hooks],
        "sys.excepthook": id(sys.excepthook),
        "sys.displayhook": id(sys.displayhook),
        "the warnings filters": [repr(each) for each in warnings.filters],
        "the root logger": (root.level, [id(each) for each in root.handlers]),
        "the working directory": os.getcwd(),
        "signal handlers": [repr(signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM)],
        "the state of the random module": hash(random.getstate()),
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }
    for name, module in list(sys.modules.items()):
        if module is not None and name.partition(".")[0] == "stillhouse" and not name.startswith("stillhouse.testing"):
            for attribute, value in vars(module).items():
                world |= _of_attribute(f"{name}.{attribute}", value)
    return world


def _of_attribute(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, types.ModuleType) or name.rpartition(".")[2].startswith("__"):
        return {}  # a module that is imported becomes an attribute of its package
    found: dict[str, Any] = {name: id(value)}
    if isinstance(value, dict | list | set):
        found[f"the content of {name}"] = repr(value)
    if isinstance(value, type):
        found |= {f"{name}.{key}": id(each) for key, each in vars(value).items()}
    return found


def probe_reference(request: dict[str, str]) -> dict[str, str]:
    """See the module."""
    from stillhouse.pipeline import run

    manager = manager_with(request)
    folder = Path(request["folder"])
    run(REFERENCE, out=folder, stop_after="student", manager=manager)
    found = {"recipe.yaml": (folder / "recipe.yaml").read_text(encoding="utf-8")}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".safetensors" or path.parent.name == "data":
            with path.open("rb") as content:
                found[str(path.relative_to(folder))] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def probe_modules(request: dict[str, Any]) -> dict[str, str]:
    """What is raised by those of ``request["modules"]`` that cannot be imported before the others.

    Other packages stay imported, which is what makes this quick; a package that allows itself to be imported only once
    fails here all the same, so that a failure is to be confirmed in a process of its own.
    """
    if request["file"]:
        sys.path.append(str(Path(request["file"]).parent))
    # Ours stays as well: that its modules can be imported in any order is a check of the core itself.
    own = {name.partition(".")[0] for name in request["modules"]}
    failed = {}
    for name in request["modules"]:
        _forget(own)
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def _forget(packages: set[str]) -> None:
    for loaded in [each for each in sys.modules if each.partition(".")[0] in packages]:
        del sys.modules[loaded]


def probe_both(request: dict[str, Any]) -> dict[str, Any]:
    """``plain``: the reference run without the plugin; ``given``: with it, as a process that has imported nothing of
    ours; ``modules``; each has what was found, or ``{"error": ...}``."""
    folder = Path(request["folder"])
    plain = probe_reference({**request, "name": "", "file": "", "folder": str(folder / "plain")})
    found = {"plain": plain}
    for name, probe in (("modules", probe_modules), ("given", probe_reference)):
        answer = folder / f"{name}.json"
        child = os.fork()
        if not child:  # what it does to the process stays in it
            status = 1
            try:
                _forget({"stillhouse"} - ({"stillhouse"} if name == "modules" else set()))
                asked = {**request, "folder": str(folder / name)}
                found_here = getattr(importlib.import_module(__spec__.name), probe.__name__)(asked)
                answer.write_text(json.dumps(found_here), encoding="utf-8")
                status = 0
            except BaseException as error:
                answer.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}), encoding="utf-8")
            finally:
                os._exit(status)
        os.waitpid(child, 0)
        ended = {"error": "the process ended before it had an answer"}
        found[name] = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else ended
    return found


PROBES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "import": probe_import,
    "modules": probe_modules,
    "reference": probe_reference,
    "both": probe_both,
}


def main() -> None:
    """Answer the request on stdin with JSON in the file that it names."""
    request = json.load(sys.stdin)
    answer = PROBES[request["probe"]](request)
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
