"""The folder of a search: whose it is, for which rows, and whether the search in it has ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stillhouse.errors import RunFolderError
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.recipe.text import parse_value, read_saved, to_yaml
from stillhouse.storage import SEARCH, read_json, remove_leftovers, write_json, write_text


@contextlib.contextmanager
def claimed(folder: Path, resolved: ResolvedRecipe) -> Iterator[None]:
    """The folder of a search for this process alone.

    Raises:
        RunFolderError: it is of another search, or another process is searching in it.
    """
    _claim(folder, resolved)
    lock = FileLock(folder / "tune.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"another process is searching in '{folder}'", where=str(folder), fix="wait for it, or choose another --out"
        ) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _claim(folder: Path, resolved: ResolvedRecipe) -> None:
    """Make the folder, or make sure that it belongs to the same search."""
    started = folder / "search.yaml"
    wanted = to_yaml({**resolved.to_recipe(), "summary": ""})
    if started.exists():
        if read_saved(started) != parse_value(wanted, source="recipe"):
            raise RunFolderError(
                f"'{folder}' holds a search that began with another recipe",
                where=str(folder),
                fix="choose another folder with --out, or remove it",
            )
    elif folder.exists() and (
        not folder.is_dir() or any(not each.name.startswith((".", "tune.")) for each in folder.iterdir())
    ):
        raise RunFolderError(
            f"'{folder}' exists and is not a search", where=str(folder), fix="choose a new or empty folder with --out"
        )
    write_text(started, wanted)


def require_same_rows(folder: Path, data: str) -> None:
    """What was measured holds for the rows that it was measured on.

    Raises:
        RunFolderError: the search began with others.
    """
    path = folder / "rows.json"
    if path.exists() and read_json(path)["data"] != data:
        raise RunFolderError(
            f"'{folder}' holds a search that began with other rows: the data have changed since",
            where=str(folder),
            fix="search anew in another folder with --out, or bring back the data",
        )
    write_json(path, {"data": data})


def ended(folder: Path, trials: int) -> dict[str, Any] | None:
    """The record of a search whose final run has met the test rows: nothing may be chosen after that.

    Raises:
        RunFolderError: more trials are wanted.
    """
    path = folder / SEARCH
    if not path.exists():
        return None
    record: dict[str, Any] = read_json(path)
    if record["final"] is None:
        return None
    if trials > max(record["wanted"], len(record["trials"])):
        raise RunFolderError(
            f"the search in '{folder}' has ended: its final run has met the test rows",
            where=str(folder),
            fix="search anew in another folder with --out; what is chosen after a look at the test is chosen by it",
        )
    return record
