"""What makes a piece of a run current: the record of its inputs, and the words for what changed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stillhouse.plugins.registry import Component
from stillhouse.storage import digest, read_json, write_json

STAGES = ("data", "teacher", "baseline", "student", "evaluate", "report")
"""Stages of a run, in order."""

RECORD = "done.json"

SIGNAL_LOCK = "run.signal.lock"
"""File, in the run folder, that is locked while the teacher's outputs are stored."""

SIZES = "sizes"
"""Folder, inside that of the run, of the students at other sizes than the recipe's own."""


def component_identity(component: Component) -> dict[str, str]:
    """What a result depends on of a component: id, version, and the source file of its target (editable installs change
    without a new version)."""
    identity = {"id": component.id, "version": str(component.plugin.version)}
    try:
        file = inspect.getsourcefile(component.load())
        if file:
            identity["source"] = digest(Path(file).read_text(encoding="utf-8"))
    except (TypeError, OSError):
        pass  # a target without Python source (C extension, partial) is identified by its version alone
    return identity


def platform_identity() -> dict[str, str]:
    """Package versions that numbers depend on."""
    return {name: version(name) for name in ("stillhouse", "torch", "numpy", "scikit-learn")}


def why_stale(folder: Path, inputs: Mapping[str, Any]) -> str | None:
    """Why a piece must be made (again): ``""`` when it was never finished, the changed inputs when they differ, and
    None when it is current."""
    path = folder / RECORD
    if not path.exists():
        return ""
    before = read_json(path)["inputs"]
    now = plain(inputs)
    if before == now:
        return None
    changed = differences(before, now)
    shown = "; ".join(changed[:3])
    return f"{shown}{f' and {len(changed) - 3} more' if len(changed) > 3 else ''}"


def differences(before: Any, now: Any) -> list[str]:
    """``name: old -> new`` for each leaf of two JSON-like values that is not the same."""
    old, new = _flat(before), _flat(now)
    return [
        _short(f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}")
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def finish(folder: Path, inputs: Mapping[str, Any], **facts: Any) -> None:
    """Record that the piece is complete."""
    write_json(folder / RECORD, {"inputs": plain(inputs), **facts})


def facts(folder: Path) -> dict[str, Any]:
    """What was recorded when the piece was finished."""
    record: dict[str, Any] = read_json(folder / RECORD)
    return record


def plain(value: Any) -> Any:
    """The value as JSON has it: mappings, lists, and text for everything that has no JSON form."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            name: leaf
            for key, item in value.items()
            for name, leaf in _flat(item, f"{prefix}.{key}" if prefix else key).items()
        }
    if isinstance(value, list):
        return {name: leaf for at, item in enumerate(value) for name, leaf in _flat(item, f"{prefix}.{at}").items()}
    return {prefix: value}


def _short(line: str) -> str:
    return line if len(line) <= 90 else line[:87] + "..."
