"""Run folders as a list: what each is a run of, how far it got, and what it found. Only small files are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stillhouse.errors import RunFolderError
from stillhouse.recipe.text import read_saved
from stillhouse.storage import SEARCH, SUMMARY, read_object

DEPTH = 3
"""Folders below the one that is searched, at most."""
STAGES = (("data", "data"), ("teacher", "teacher"), ("baseline", "baseline"), ("student", "student"))
"""Stages whose folder is there as soon as they begin, in order."""


def find_runs(folder: Path) -> list[Path]:
    """Run folders in ``folder``, which may be one itself, sorted by name.

    Raises:
        RunFolderError: there is no such folder.
    """
    if folder.is_file():
        raise RunFolderError(
            f"'{folder}' is a file", where=str(folder), fix="give a run, or the folder that holds runs"
        )
    if not folder.is_dir():
        raise RunFolderError(
            f"there is no folder '{folder}'",
            where=str(folder.absolute().parent),
            fix="give the folder that holds your runs; `stillhouse run core/quickstart` makes one in ./runs",
        )
    return sorted(_found(folder, DEPTH))


def _found(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / SEARCH).exists():  # a search, whose run is inside
        depth, folder = depth + 1, folder / "final"
        if not folder.is_dir():
            return
    if (folder / "recipe.yaml").is_file() and ((folder / "manifest.json").exists() or (folder / SUMMARY).exists()):
        yield folder
        return
    if depth:
        for each in folder.iterdir():
            if each.is_dir() and not each.name.startswith("."):
                yield from _found(each, depth - 1)


def describe_run(folder: Path) -> dict[str, Any]:
    """What is known of a run, JSON-ready.

    Returns:
        ``folder``, ``recipe``, ``state`` ("finished", "running", or "stopped in STAGE"), ``created``, and what the
        summary says (each null without one): ``metric``, ``teacher``, ``baseline``, ``student`` (test values),
        ``gain``, ``gain_ci95``, ``helped``, ``seeds``, ``parameters``, ``bytes``, ``latency_ms`` of the student,
        ``seconds`` of all trainings of networks (None where there was none).
    """
    recipe = read_saved(folder / "recipe.yaml")
    manifest = read_object(folder / "manifest.json") if (folder / "manifest.json").exists() else {}
    found: dict[str, Any] = {
        "folder": str(folder),
        "recipe": recipe.get("name", ""),
        "state": run_state(folder),
        "created": manifest.get("created"),
        "seeds": recipe.get("seeds"),
    }
    summary = read_object(folder / SUMMARY) if (folder / SUMMARY).exists() else None
    student = (summary or {}).get("student") or {}
    metric = summary["primary_metric"]["name"] if summary else None
    return found | {
        "metric": metric,
        "teacher": summary["teacher"]["metrics"]["test"][metric] if summary else None,
        "baseline": summary["baseline"]["mean"] if summary else None,
        "student": student.get("mean"),
        "gain": summary["verdict"]["gain"] if summary else None,
        "gain_ci95": summary["verdict"]["gain_ci95"] if summary else None,
        "helped": summary["verdict"]["helped"] if summary else None,
        "parameters": student.get("parameters"),
        "bytes": student.get("bytes"),
        "latency_ms": (student.get("latency_ms") or {}).get("p50"),
        # Runs of estimators alone had no times once: a sum of nothing is no time.
        "seconds": round(sum(summary["seconds"].values()), 3) or None if summary else None,
    }


def run_state(folder: Path) -> str:
    """ "finished", "running", or the stage that the run was stopped in."""
    lock = folder / "run.0.lock"
    if lock.exists():  # it is removed at the end: a process runs, or was killed
        probe = FileLock(lock)
        try:
            probe.acquire(timeout=0)
        except Timeout:
            return "running"
        probe.release()
    if (folder / "report.html").exists() and (folder / SUMMARY).exists():
        return "finished"
    if (folder / SUMMARY).exists():
        return "stopped in report"
    begun = [stage for stage, name in STAGES if (folder / name).exists()]
    return f"stopped in {begun[-1] if begun else 'data'}"
