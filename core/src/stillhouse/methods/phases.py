"""What is kept of a training that is under way: weights of its finished phases, and where a method of many steps is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stillhouse.storage import read_json, read_tensors, replacing_folder, write_json, write_tensors
from stillhouse.training.learner import Learner

PHASES = "phases"
"""Folder of the finished phases of a model that is in training."""
PROGRESS = "progress"
"""Folder, inside that of the phases, of what a method of many steps keeps."""


def write_phase(folder: Path, learner: Learner, history: list[dict[str, Any]]) -> None:
    """Weights of all that learned, then the record whose presence says that they are there."""
    state = {name: tensor.detach().cpu().clone() for name, tensor in learner.state_dict().items()}
    write_tensors(folder / "learner.safetensors", state)
    write_json(folder / "done.json", history)
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def read_phase(folder: Path, learner: Learner) -> list[dict[str, Any]]:
    """Give a learner the weights of a finished phase; the records of its epochs."""
    learner.load_state_dict(read_tensors(folder / "learner.safetensors"))
    learner.eval()
    history: list[dict[str, Any]] = read_json(folder / "done.json")
    return history


def write_progress(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Keep what is known after a step: a folder that appears as a whole, before that of the step before goes."""
    progress = folder / PHASES / PROGRESS
    with replacing_folder(progress / f"{step:09d}") as made:
        write_tensors(made / "progress.safetensors", tensors)
        write_json(made / "progress.json", dict(facts))
    for old in _steps(progress)[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def read_progress(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `write_progress` kept last; None without any."""
    steps = _steps(folder / PHASES / PROGRESS)
    if not steps:
        return None
    facts: dict[str, Any] = read_json(steps[-1] / "progress.json")
    return read_tensors(steps[-1] / "progress.safetensors"), facts


def _steps(progress: Path) -> list[Path]:
    return sorted(path.parent for path in progress.glob("[0-9]*/progress.json"))
