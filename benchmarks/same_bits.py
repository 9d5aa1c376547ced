"""Do numbers stay the same? Runs recipes on another revision and on this tree, and compares every model and prediction
bit by bit: ``python -m benchmarks.same_bits REV [RECIPE...]``. The exit status is 1 when any differs."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RECIPES = (
    "core/quickstart",
    "industrial/rul-demo",
    "finance/fraud-demo",
    "medicine/vqa-demo",
    "audio_vision/tagging-demo",
)
CHANGES = ("seeds=[0]", "train.teacher.epochs=2", "train.student.epochs=2", "device=cpu")
STAGES = ("teacher", "baseline", "student")


def main() -> int:
    """Print one row a recipe, and the files that differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_bits", description=__doc__)
    parser.add_argument("revision", metavar="REV", help="a commit, tag or branch to compare this tree with")
    parser.add_argument("recipes", metavar="RECIPE", nargs="*", default=RECIPES, help=f"default: {', '.join(RECIPES)}")
    chosen = parser.parse_args()
    table = Table("recipe", "files", "", box=None)
    differing: list[str] = []
    with tempfile.TemporaryDirectory() as made, worktree(chosen.revision, Path(made) / "tree") as other:
        for number, recipe in enumerate(chosen.recipes):
            folder = Path(made) / str(number)
            before, after = (run(tree, recipe, folder / name) for name, tree in (("before", other), ("after", ROOT)))
            found = differences(before, after)
            files = len(contents(after))
            table.add_row(recipe, str(files), f"{len(found)} different" if found else "same")
            differing += [f"{recipe}: {name}" for name in found]
    console = Console(highlight=False, width=120)
    console.print(table)
    for each in differing:
        console.print(f"different: {each}", markup=False)
    return int(bool(differing))


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """The tree of ``revision`` in ``folder``, as long as the context lasts."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def run(tree: Path, recipe: str, folder: Path) -> Path:
    """The run folder of ``recipe``, trained for two epochs with the code of ``tree`` and a store of its own."""
    sources = [tree / "core" / "src", *sorted((tree / "plugins").glob("*/src"))]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, sources)),
        "OMP_NUM_THREADS": "1",
        "STILLHOUSE_CACHE": str(folder / "store"),
    }
    changes = [word for change in CHANGES for word in ("--set", change)]
    command = [sys.executable, "-m", "stillhouse", "run", recipe, "--out", str(folder / "run"), *changes]
    subprocess.run(
        [*command, "--stop-after", "student", "--quiet"], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return folder / "run"


def differences(before: Path, after: Path) -> list[str]:
    """Files of two run folders that differ or that only one has.

    Raises:
        ValueError: neither folder has a file to compare.
    """
    one, two = contents(before), contents(after)
    if not one and not two:
        raise ValueError(f"there is no model in {before} nor in {after}")
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def contents(run: Path) -> dict[str, str]:
    """SHA-256 of every model and prediction of a run folder, by its path there."""
    found = {}
    for stage in STAGES:
        for path in sorted((run / stage).rglob("*")):
            if path.suffix == ".safetensors":
                found[path.relative_to(run).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
            elif path.suffix == ".skops":
                found[path.relative_to(run).as_posix()] = estimator(path)
    return found


def estimator(path: Path) -> str:
    """SHA-256 of what a skops file says. The file itself has the time of writing, and addresses in memory by which
    objects and arrays are named: arrays are replaced by their hashes, addresses by the order in which they come."""
    order: dict[Any, int] = {}
    with zipfile.ZipFile(path) as archive:

        def plain(node: Any) -> Any:
            if isinstance(node, list):
                return [plain(each) for each in node]
            if not isinstance(node, dict):
                return node
            named = {key: plain(value) for key, value in node.items() if key not in ("__id__", "file")}
            if "__id__" in node:
                named["__id__"] = order.setdefault(node["__id__"], len(order))
            if "file" in node:
                named["file"] = hashlib.sha256(archive.read(node["file"])).hexdigest()
            return named

        document = plain(json.loads(archive.read("schema.json")))
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
