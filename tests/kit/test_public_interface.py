"""What plugin authors may build on does not change unnoticed.

After a change that is wanted: ``STILLHOUSE_WRITE_SNAPSHOT=1 pytest tests/kit/test_public_interface.py``, look at the
difference, and raise `stillhouse.API` if a plugin written for the previous interface would stop working.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.plugins import hookspecs

ROOT = Path(__file__).parents[2]
OURS = sorted(each for each in (ROOT / "plugins").iterdir() if (each / "pyproject.toml").exists())
EXAMPLE = ROOT / "examples" / "stillhouse-law"
SNAPSHOT = Path(__file__).with_name("public_interface.txt")
MODULES = (
    "stillhouse",
    "stillhouse.plugins",
    "stillhouse.types",
    "stillhouse.kinds",
    "stillhouse.data.readers",
    "stillhouse.data.tables",
    "stillhouse.data.downloads",
    "stillhouse.data.splitting",
    "stillhouse.data.folders",
    "stillhouse.text",
    "stillhouse.components.trees",
    "stillhouse.errors",
    "stillhouse.heads",
    "stillhouse.methods",
    "stillhouse.heads.checks",
    "stillhouse.heads.figures",
    "stillhouse.heads.measures",
    "stillhouse.figures",
    "stillhouse.units",
    "stillhouse.ranges",
    "stillhouse.testing",
    "stillhouse.testing.fixtures",
)


def names(module: Any) -> list[str]:
    """Public names that the module lists, or defines itself."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", module.__name__) == module.__name__
        and not isinstance(value, type(hookspecs.hookimpl))
        and name not in ("annotations", "TYPE_CHECKING")
    )


def signature(value: Any) -> str:
    """Names, kinds and defaults of parameters: what a caller depends on; annotations are left out."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "(...)"
    shown = []
    for each in parameters:
        default = each.default if each.default is each.empty or _plain(each.default) else "..."
        shown.append(str(each.replace(annotation=each.empty, default=default)).replace("'...'", "..."))
    return f"({', '.join(f'{kind}{each}' for kind, each in zip(_markers(parameters), shown, strict=True))})"


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or value in ((), [], {})


def _markers(parameters: Any) -> Iterator[str]:
    """``*, `` before the first keyword-only parameter."""
    before = False
    for each in parameters:
        yield "*, " if each.kind is each.KEYWORD_ONLY and not before else ""
        before = before or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)


def lines(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, type) and issubclass(value, Enum):
        yield f"{name}: {', '.join(f'{each.name}={each.value}' for each in value)}"
    elif isinstance(value, type):
        yield f"{name}{signature(value)}"
        fields = {each.name for each in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
        for member, inner in sorted(vars(value).items()):
            if member.startswith("_") or member in fields:
                continue
            inner = inner.__func__ if isinstance(inner, classmethod | staticmethod) else inner
            if inspect.isfunction(inner):
                yield f"{name}.{member}{signature(inner)}"
            elif isinstance(inner, property):
                yield f"{name}.{member}"
    elif callable(value):
        yield f"{name}{signature(value)}"
    else:
        yield f"{name} = {value!r}" if _plain(value) else name


def surface() -> list[str]:
    found = [f"hook {hook} -> {spec.__name__}" for hook, spec in hookspecs.HOOKS.items()]
    for module in MODULES:
        loaded = importlib.import_module(module)
        for name in names(loaded):
            found += lines(f"{module}.{name}", getattr(loaded, name))
    return [each for each in found if not each.startswith("stillhouse.__version__")]


def test_public_interface_is_the_one_that_was_agreed_on() -> None:
    found = surface()
    if os.environ.get("STILLHOUSE_WRITE_SNAPSHOT"):
        SNAPSHOT.write_text("\n".join(found) + "\n")
    agreed = SNAPSHOT.read_text().splitlines()
    gone = [each for each in agreed if each not in found]
    new = [each for each in found if each not in agreed]
    assert not gone, f"plugins may depend on this: see the top of {Path(__file__).name}"
    assert not new, f"to be agreed on: see the top of {Path(__file__).name}"


def imported(file: Path) -> Iterator[str]:
    """Full names of ours that a file imports: modules, and ``module.name`` for what it takes from one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.partition(".")[0] == "stillhouse")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "stillhouse":
            yield from (f"{node.module}.{each.name}" for each in node.names)


def is_public(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if name in MODULES or module not in MODULES:
        return name in MODULES
    offered = getattr(importlib.import_module(module), "__all__", [attribute])
    return attribute in offered and not attribute.startswith("_")


@pytest.mark.parametrize("folder", [*OURS, EXAMPLE], ids=lambda folder: folder.name)
def test_plugins_use_the_public_interface_only(folder: Path) -> None:
    used = {name for file in folder.rglob("*.py") for name in imported(file)}
    assert [name for name in sorted(used) if not is_public(name)] == []
    assert len(used) >= 6


def test_version_of_the_contract_is_a_number_that_the_snapshot_holds() -> None:
    assert isinstance(stillhouse.API, int)
    assert f"stillhouse.API = {stillhouse.API}" in SNAPSHOT.read_text().splitlines()
