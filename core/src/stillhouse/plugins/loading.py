"""One plugin, checked against the contract and asked for its specs; whatever goes wrong is `Rejected`."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from stillhouse.errors import PluginError, SpecError
from stillhouse.plugins.deprecation import Deprecated, notice
from stillhouse.plugins.hookspecs import HOOKS, PROJECT, RENAMED_HOOKS
from stillhouse.plugins.metadata import Installed
from stillhouse.plugins.records import Status
from stillhouse.plugins.spec import Spec

MARK = f"{PROJECT}_impl"
"""Attribute that ``hookimpl`` sets on a function."""


class Rejected(Exception):
    """The plugin cannot be active: its status, the cause, and a fix for it."""

    def __init__(self, status: Status, error: str, fix: str) -> None:
        super().__init__(error)
        self.status, self.error, self.fix = status, error, fix


@contextlib.contextmanager
def guarded(what: str, source: str) -> Iterator[None]:
    """Turn whatever the plugin's code raises into `Rejected`; only ``KeyboardInterrupt`` passes.

    What the plugin prints goes to stderr, so that ``--json`` on stdout stays JSON.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Rejected:
        raise
    except SpecError as error:
        place = f" in {error.where}" if error.where else ""
        text = f"{what} fails: {error.what}{place}{_line(error)}"
        raise Rejected(Status.INVALID, text, error.fix or "correct the spec") from error
    except PluginError as error:
        raise Rejected(Status.INVALID, f"{what} fails: {error.what}", error.fix) from error
    except ModuleNotFoundError as error:
        otherwise = f"correct {source}" if _is_file(source) else f"reinstall {source} with its dependencies"
        fix = f"install what brings the module '{error.name}', or {otherwise}"
        raise Rejected(Status.BROKEN, f"{what} fails: {error}{_line(error)}", fix) from error
    except (Exception, SystemExit) as error:
        fix = f"correct {source}" if _is_file(source) else f"update or uninstall {source}, and tell its author"
        raise Rejected(Status.BROKEN, f"{what} fails: {type(error).__name__}: {error}{_line(error)}", fix) from error


def _is_file(source: str) -> bool:
    """The plugin is a file given with ``--plugin``: its user is its author."""
    return Path(source).is_absolute()


def _line(error: BaseException) -> str:
    """Place in the plugin's own code where ``error`` came from, as `` at file.py:12``."""
    ours = __file__.rpartition("plugins")[0]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<")) and "importlib" not in frame.filename
    ]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def import_entry_point(found: Installed) -> Any:
    """Import what the entry point of an installed plugin names.

    Raises:
        Rejected: there is no such module; any other exception is the plugin's own.
    """
    entry_point = found.entry_point
    assert entry_point is not None
    try:
        return entry_point.load()
    except ModuleNotFoundError as error:
        if error.name is None or not f"{entry_point.module}.".startswith(f"{error.name}."):
            raise  # something else is missing, which the plugin imports
        reason = f"its entry point names the module '{entry_point.module}', and there is none"
        fix = f"reinstall {found.distribution}; its author: correct the entry point in pyproject.toml"
        raise Rejected(Status.BROKEN, reason, fix) from error


def import_file(path: Path) -> ModuleType:
    """Import ``path`` as the module of its stem: targets ``stem:attribute`` resolve, in worker processes too.

    Raises:
        PluginError: another module of that name can be imported.
    """
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    with contextlib.suppress(ImportError, ValueError):
        other = importlib.util.find_spec(name)
        if other is not None and other.origin != str(path):
            raise PluginError(
                f"'{path.name}' has the name of another module ({other.origin or 'a package'})",
                fix="rename the file to something that is not installed, e.g. my_domain.py",
            )
    # At the end, so that it shadows nothing; spawned workers inherit sys.path and find the module there.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def python_names(folder: Path) -> set[str]:
    """Top-level modules that a folder brings: itself when it is a package, else the modules and packages in it."""
    if (folder / "__init__.py").is_file():
        return {folder.name}
    return {each.stem for each in folder.glob("*.py")} | {each.parent.name for each in folder.glob("*/__init__.py")}


def check_hooks(plugin: Any) -> list[tuple[str, str]]:
    """Hooks that ``plugin`` (a module or an object) implements, in the order of the contract: the name that it uses,
    and the present name, which differ for a hook that was renamed.

    Raises:
        Rejected: a misspelt hook, a hook with parameters or pluggy options, or one without ``@hookimpl``.
    """
    found: list[tuple[str, str]] = []
    known = set(HOOKS) | set(RENAMED_HOOKS)
    members = vars(plugin) if inspect.ismodule(plugin) else {name: getattr(plugin, name) for name in dir(plugin)}
    for name, value in members.items():
        options = getattr(value, MARK, None) if callable(value) else None
        if options is None:
            if name.startswith(f"{PROJECT}_") and inspect.isfunction(value):
                raise _unmarked(name)
            continue
        if name not in known:
            raise Rejected(Status.INVALID, f"'{name}' is not a hook", _hook_suggestion(name))
        used = sorted(key for key, given in options.items() if given)
        if used:
            raise Rejected(
                Status.INVALID,
                f"hook '{name}' uses the pluggy option{'s' if len(used) > 1 else ''} {', '.join(used)}",
                "write @hookimpl without options: hooks of this project have no order and no wrappers",
            )
        if inspect.signature(value).parameters:
            raise Rejected(
                Status.INVALID,
                f"hook '{name}' has parameters",
                f"write 'def {name}():', hooks take no arguments",
            )
        found.append((name, RENAMED_HOOKS[name].hook if name in RENAMED_HOOKS else name))
    order = list(HOOKS)
    return sorted(found, key=lambda each: order.index(each[1]))


def _unmarked(name: str) -> Rejected:
    if name in HOOKS or name in RENAMED_HOOKS:
        return Rejected(Status.INVALID, f"hook '{name}' is not marked", f"put @hookimpl above 'def {name}():'")
    fix = f"{_hook_suggestion(name)} (a helper function must not begin with '{PROJECT}_')"
    return Rejected(Status.INVALID, f"'{name}' is not a hook", fix)


def _hook_suggestion(name: str) -> str:
    full = name if name.startswith(f"{PROJECT}_") else f"{PROJECT}_{name}"
    close = difflib.get_close_matches(full, HOOKS, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"the hooks are {', '.join(HOOKS)}"


def collect(manager: pluggy.PluginManager, plugin: Any, name: str, source: str) -> list[Spec]:
    """Register ``plugin`` and return the specs of all its hooks; on failure nothing of it stays registered.

    Raises:
        Rejected: the plugin does not keep the contract, or raises.
    """
    check_hooks(plugin)
    try:
        manager.register(plugin, name=name)
    except ValueError as error:
        fix = "let each entry point name a module of its own"
        raise Rejected(Status.INVALID, f"cannot be registered: {error}", fix) from error
    try:
        return specs_of(plugin, source)
    except BaseException:
        manager.unregister(name=name)
        raise


def specs_of(plugin: Any, source: str) -> list[Spec]:
    """What all hooks of ``plugin`` give.

    Raises:
        Rejected: a hook raises or gives something else than it should, or two specs of a kind share a name.
    """
    specs: list[Spec] = []
    for name, hook in check_hooks(plugin):
        specs.extend(_items(name, HOOKS[hook], getattr(plugin, name), source))
    _refuse_duplicates(specs)
    return specs


def old_hooks(plugin: Any) -> list[str]:
    """Sentences on the renamed hooks that ``plugin`` still implements under their old name."""
    return [
        notice(f"hook '{name}'", Deprecated(f"write '{hook}'", f"stillhouse {RENAMED_HOOKS[name].removed_in}"))
        for name, hook in check_hooks(plugin)
        if name != hook
    ]


def _items(hook: str, expected: type[Spec], function: Callable[[], Any], source: str) -> list[Spec]:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise Rejected(Status.INVALID, f"hook '{hook}' is async", f"write 'def {hook}():'")
    with guarded(f"hook '{hook}'", source):
        result = function()
        if isinstance(result, Spec | str | bytes | dict) or not hasattr(result, "__iter__"):
            raise Rejected(
                Status.INVALID,
                f"hook '{hook}' returned {_shown(result)}, not an iterable of {expected.__name__}",
                f"return a list, e.g. 'return [{expected.__name__}(...)]', or yield each spec",
            )
        items = list(result)
    for position, item in enumerate(items):
        if not isinstance(item, expected):
            raise Rejected(
                Status.INVALID,
                f"hook '{hook}' gave {_shown(item)} as item {position}, not a {expected.__name__}",
                _item_fix(item, expected),
            )
    return items


def _item_fix(item: Any, expected: type) -> str:
    home = next((hook for hook, spec in HOOKS.items() if isinstance(item, spec)), None)
    return f"give it from '{home}'" if home else f"give {expected.__name__}(...) objects only"


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}" if value is not None else "None"


def _refuse_duplicates(specs: list[Spec]) -> None:
    seen: set[tuple[str, str]] = set()
    for spec in specs:
        key = (spec.kind, spec.name)
        if key in seen:
            raise Rejected(
                Status.INVALID,
                f"two components of kind {spec.kind} are called '{spec.name}'",
                "give each component of a kind a name of its own",
            )
        seen.add(key)
