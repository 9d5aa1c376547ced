"""What makes a piece of a run current: the record of its inputs, and the words for what changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from stillhouse.storage import read_json, write_json

STAGES = ("data", "teacher", "baseline", "student", "evaluate", "report")
"""Stages of a run, in order."""

ABSENT = "absent"
"""What a change says in place of a value that is not there."""

DIGEST = re.compile(r"[0-9a-f]{16,}")

RECORD = "done.json"

SIGNAL_LOCK = "run.signal.lock"
"""File, in the run folder, that is locked while the teacher's outputs are stored."""

SIZES = "sizes"
"""Folder, inside that of the run, of the students at other sizes than the recipe's own."""


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
    """``name: old -> new`` for each leaf of two JSON-like values that is not the same, of a digest its name alone.

    Lists of mappings that differ in length are told by their length.
    """
    return [_short(line) for line in _changes("", before, now)]


def _changes(name: str, old: Any, new: Any) -> Iterator[str]:
    for kind in (dict, list):  # of what is there on one side alone, each leaf is named
        if isinstance(old, kind) and new == ABSENT:
            new = kind()
        elif isinstance(new, kind) and old == ABSENT:
            old = kind()
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(f"{name}.{key}" if name else key, old.get(key, ABSENT), new.get(key, ABSENT))
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new) and any(isinstance(each, dict) for each in [*old, *new]):
            yield f"{name}: {len(old)} -> {len(new)} entries"
        else:
            for at, (one, other) in enumerate(zip_longest(old, new, fillvalue=ABSENT)):
                yield from _changes(f"{name}.{at}", one, other)
    elif old != new:
        yield _told(name, old, new)


def _told(name: str, old: Any, new: Any) -> str:
    """A changed leaf in words. What a digest stands for has changed, and the digits say nothing to anybody."""
    if all(isinstance(each, str) and DIGEST.fullmatch(each) for each in (old, new)):
        owner, _, kind = name.rpartition(".")
        return f"code of {owner}" if kind == "source" and owner else name
    return f"{name}: {old} -> {new}"


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


def _short(line: str) -> str:
    return line if len(line) <= 90 else line[:87] + "..."
