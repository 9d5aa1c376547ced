"""Files that a dataset is made of, and which of its rows stand in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.plugins.registry import Component
from stillhouse.testing.isolation import offline
from stillhouse.testing.rows import few
from stillhouse.testing.workbench import Workbench
from stillhouse.types import Split, Splits

SAMPLE = 200
"""Rows of a sample file that are compared."""


def files_of(bench: Workbench, component: Component) -> dict[str, Path]:
    """Options that name a file, and the file."""
    given = bench.given(component) or {}
    found = {name: Path(str(value)) for name, value in given.items() if isinstance(value, str | Path)}
    return {name: path for name, path in found.items() if path.is_file()}


def matched(splits: Splits, path: Path) -> tuple[int, dict[int, str]] | None:
    """How many rows the reader makes of a file, and for those (of the first `SAMPLE`) that are rows of the dataset the
    split that each is in; None when the reader cannot read it or rows cannot be compared."""
    assert splits.reader is not None
    names = [name for name, spec in splits.info.inputs.items() if -1 not in spec.shape]
    if len(names) != len(splits.info.inputs) or splits.train.stochastic:
        return None
    try:
        with offline():
            read, _ = splits.reader.read(path)
            rows = _flat(few(read, SAMPLE) if len(read) > SAMPLE else read, names)
    except Exception:
        return None  # a file to learn from need not be one to predict: it may hold several tables, or no rows at all
    found: dict[int, str] = {}
    for name, split in splits.named().items():
        these = _flat(split, names)
        if these.shape[1] != rows.shape[1]:
            return len(read), {}
        scale = 1e-3 * (these.std(axis=0) + 1e-6)
        for at, row in enumerate(rows):
            if at not in found and (np.abs(these - row) <= scale + 1e-3 * np.abs(row)).all(axis=1).any():
                found[at] = name
    return len(read), found


def _flat(split: Split, names: list[str]) -> np.ndarray:
    columns: dict[str, Any] = split.columns(names)
    return np.concatenate([columns[name].double().reshape(len(split), -1).numpy() for name in names], axis=1)
