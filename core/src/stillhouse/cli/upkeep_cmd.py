"""``stillhouse cache list``, ``cache clear`` and ``doctor``: what is kept beside the runs, and whether all is well."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stillhouse.cli.numbers import in_bytes
from stillhouse.cli.output import assembled, print_json, print_lines, print_table
from stillhouse.cli.shared import JsonOption, get_manager
from stillhouse.cli.usage import UPKEEP, Command, Group, examples

cache = typer.Typer(
    cls=Group,
    help="See and clear what runs share: trained teachers, replies.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.add_typer(cache, name="cache", rich_help_panel=UPKEEP)
    app.command("doctor", cls=Command, rich_help_panel=UPKEEP, epilog=examples("doctor", "doctor --json"))(doctor)


class Kept(StrEnum):
    """What the cache holds, as ``cache clear`` takes it."""

    TEACHERS = "teachers"
    TABLES = "tables"
    TEXTS = "texts"
    REPLIES = "replies"


FOLDERS = {Kept.TEACHERS: "teachers", Kept.TABLES: "parquet", Kept.TEXTS: "written", Kept.REPLIES: "chat"}
"""Folder of each inside the cache."""


@cache.command("list", cls=Command, epilog=examples("cache list", "cache list --json"))
def list_cache(json: JsonOption = False) -> None:
    """List what is kept: trained teachers, columns of tables, texts of teachers, replies of language models."""
    from stillhouse.storage import cache_folder

    folder = cache_folder()
    entries = [entry for kept in Kept for entry in _entries(folder, kept)]
    if json:
        print_json(folder=str(folder), entries=entries)
        return
    if entries:
        rows = [(each["kept"], each["what"], in_bytes(each["bytes"]), each["made"][:10]) for each in entries]
        print_table(("Kept", "What", "Size", "Made"), rows, wrap=("What",), right=("Size",))
        print_lines("")
        print_lines(f"{_several(entries)} in {folder}; remove them with: stillhouse cache clear")
    else:
        print_lines(f"Nothing is kept in {folder}.")


@cache.command("clear", cls=Command, epilog=examples("cache clear", "cache clear teachers replies --yes"))
def clear_cache(
    what: Annotated[
        list[Kept] | None,
        typer.Argument(
            metavar="[teachers] [tables] [texts] [replies]", help="What to remove; all but replies by default."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove what a run that needs it makes again: trained teachers, columns of tables, texts that teachers wrote.

    Replies of language models are removed only when they are named: they may have cost money.
    """
    from stillhouse.errors import UsageError
    from stillhouse.storage import cache_folder

    folder, chosen = cache_folder(), what or [kept for kept in Kept if kept is not Kept.REPLIES]
    entries = [entry for kept in chosen for entry in _entries(folder, kept)]
    size = sum(each["bytes"] for each in entries)
    if entries and not yes:
        if json or not sys.stdin.isatty():
            raise UsageError(
                f"{_several(entries)} would be removed, and nobody can be asked", where=str(folder), fix="give --yes"
            )
        typer.confirm(f"Remove {_several(entries)} from {folder}?", abort=True)
    for each in entries:
        path = Path(each["path"])
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if json:
        print_json(folder=str(folder), removed=len(entries), bytes=size)
    elif entries:
        print_lines(f"removed {_several(entries)} from {folder}")
    else:
        print_lines(f"Nothing to remove: no {' and no '.join(chosen)} in {folder}.")


def _several(entries: Sequence[dict[str, Any]]) -> str:
    """ "25 entries (71.5 MB)"."""
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    return f"{count} ({in_bytes(sum(each['bytes'] for each in entries))})"


def _entries(folder: Path, kept: Kept) -> list[dict[str, Any]]:
    import datetime

    found = []
    inside = folder / FOLDERS[kept]
    for path in sorted(inside.iterdir()) if inside.is_dir() else []:
        if path.name.startswith("."):
            continue  # a run is writing it
        files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
        made = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
        found.append(
            {
                "kept": str(kept),
                "what": _what(path),
                "path": str(path),
                "bytes": sum(each.stat().st_size for each in files),
                "made": made.isoformat(timespec="seconds"),
            }
        )
    return found


def _what(path: Path) -> str:
    """What an entry is to a person: a teacher's component and seed, a table's folder and target, else its name."""
    from stillhouse.storage import PLAN, read_json

    if (path / "model.json").exists():
        model = read_json(path / "model.json")
        return f"{model['component']}, seed {model['seed']} ({path.name[:8]})"
    if (path / PLAN).exists():
        source = read_json(path / PLAN).get("source")  # earlier versions did not write it
        return f"{source['folder']}, target {source['target']} ({path.name[:8]})" if source else path.name
    return path.name


EXTRAS = {
    "onnx": ("export --format onnx", ("onnx", "onnxruntime", "onnxscript")),
    "tune": ("tune", ("optuna",)),
    "ray": ("--engine ray", ("ray",)),
    "parquet": ("tables in Parquet files", ("pyarrow",)),
    "text": ("pretrained texts", ("transformers", "tokenizers")),
    "chat": ("language models as teachers", ("httpx",)),
}
"""Extras of the core: what they are for, and the packages that they bring."""


def doctor(ctx: typer.Context, json: JsonOption = False) -> None:
    """Look at the installation: versions, device, folders, plugins.

    The exit status is 1 when something keeps runs from working.
    """
    manager = get_manager(ctx, lenient=True)
    checks = [*_versions(), *_machine(), *_folders(), *_extras()]
    for record in manager.records:
        good = str(record.status) in ("active", "disabled")
        detail = f"{record.source}, {record.status}" + ("" if good else f": {record.error}")
        checks.append(_check(f"plugin {record.name}", detail, good, record.fix))
    if json:
        print_json(ok=all(each["ok"] is not False for each in checks), checks=checks)
    else:
        width = max(len(each["name"]) for each in checks)
        for each in checks:
            mark, style = {True: ("ok", "green"), None: ("--", "dim"), False: ("!!", "bold red")}[each["ok"]]
            print_lines(assembled((f"{mark:3}", style), f"{each['name']:{width}}  {each['detail']}"))
            if each["ok"] is not True and each["fix"]:
                print_lines(f"{'':{width + 5}}fix: {each['fix']}")
    if any(each["ok"] is False for each in checks):
        raise typer.Exit(1)


def _check(name: str, detail: str, ok: bool | None, fix: str = "") -> dict[str, Any]:
    """``ok`` is None for what is missing and need not be there."""
    return {"name": name, "detail": detail, "ok": ok, "fix": fix}


def _versions() -> list[dict[str, Any]]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = [_check("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}", True)]
    for name in ("stillhouse", "torch", "numpy", "scikit-learn", "accelerate"):
        try:
            found.append(_check(name, version(name), True))
        except PackageNotFoundError:
            found.append(_check(name, "not installed", False, "pip install stillhouse"))
    return found


def _machine() -> list[dict[str, Any]]:
    import torch

    from stillhouse.training.threads import available_cores, share

    device = "cpu alone"
    if torch.cuda.is_available():
        device = f"cuda, {torch.cuda.get_device_name(0)}"
    elif torch.backends.mps.is_available():
        device = "mps"
    threads = os.environ.get("OMP_NUM_THREADS")
    limited = f"; OMP_NUM_THREADS={threads}" if threads else ""
    return [
        _check("cores", f"{available_cores()}, of which a run uses {share()}{limited}", True),
        _check("device", device, True),
    ]


def _folders() -> list[dict[str, Any]]:
    from stillhouse.pipeline.data import data_root
    from stillhouse.storage import cache_folder

    data = data_root()
    there = [each.name for each in sorted(data.iterdir()) if each.is_dir()] if data.is_dir() else []
    detail = f"{data} ({', '.join(there) or 'nothing in it'})" if data.is_dir() else f"{data} does not exist"
    found = [
        _check(
            "data",
            detail,
            True if there else None,
            "set STILLHOUSE_DATA to the folder of official files, if you use any",
        )
    ]
    cache_path = cache_folder()
    nearest = next(each for each in (cache_path, *cache_path.parents) if each.exists())
    writable = os.access(nearest, os.W_OK)
    found.append(_check("cache", str(cache_path), writable, "set STILLHOUSE_CACHE to a folder that you may write to"))
    free = shutil.disk_usage(Path.cwd()).free
    found.append(
        _check("disk", f"{in_bytes(free)} free here", free > 1e9, "make room: a run keeps models and predictions")
    )
    return found


def _extras() -> list[dict[str, Any]]:
    import importlib.util

    found = []
    for extra, (purpose, packages) in EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        detail = f"for {purpose}" + (f": {', '.join(missing)} not installed" if missing else "")
        found.append(
            _check(f"extra [{extra}]", detail, None if missing else True, f"pip install 'stillhouse[{extra}]'")
        )
    return found
