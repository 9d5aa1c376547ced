"""How much processor time a command takes before its work begins, and the contract of a new plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.timing import Comparison, compare, processor_seconds

PLUGINS = 50
"""Installed plugins of the crowded environment."""


def compare_start() -> Iterator[Comparison]:
    """Commands against the bare interpreter, each in a fresh process, and the contract of a scaffolded plugin."""
    for arguments in (["--help"], ["plugins", "list"], ["components"]):
        yield _against_python(f"stillhouse {' '.join(arguments)}", lambda arguments=arguments: _stillhouse(*arguments))
    with tempfile.TemporaryDirectory() as folder:
        crowded = _crowd(Path(folder))
        yield _against_python(
            f"stillhouse plugins list with {PLUGINS} more plugins", lambda: _stillhouse("plugins", "list", path=crowded)
        )
    yield _against_python("import torch (what the commands above avoid)", lambda: _run("-c", "import torch"), pairs=3)
    yield compare(
        "stillhouse run of the smallest recipe, against importing torch, scikit-learn and Matplotlib",
        _smallest_run,
        lambda: _run("-c", "import torch, sklearn.metrics, scipy.stats, matplotlib.figure"),
        pairs=5,
        clock=processor_seconds,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = _new_plugin(Path(folder))
        for options in (["--quick"], []):
            yield _against_python(
                " ".join(["stillhouse plugins check", *options, "of a new plugin"]),
                lambda options=options: _stillhouse("plugins", "check", "bench", *options, path=path),
                pairs=3,
            )


def _smallest_run() -> None:
    small = ["dataset.rows=200", "train.teacher.epochs=1", "train.student.epochs=1", "evaluate.latency_samples=10"]
    changes = [part for change in small for part in ("--set", change)]
    with tempfile.TemporaryDirectory() as folder:
        _stillhouse("run", "core/quickstart", "--seeds", "0", "--out", f"{folder}/run", *changes)


def _new_plugin(folder: Path) -> str:
    """The places of a plugin as ``stillhouse plugins new`` writes it, with the metadata of an editable installation."""
    source = folder / "stillhouse-bench"
    _stillhouse("plugins", "new", "bench", "--output", str(source))
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    needs = [f"Requires-Dist: {each}" for each in project["dependencies"]]
    _installed(folder / "site", "bench", project["entry-points"]["stillhouse.plugins"]["bench"], needs, "0.1.0")
    url = {"url": source.as_uri(), "dir_info": {"editable": True}}
    (folder / "site" / "stillhouse_bench-0.1.0.dist-info" / "direct_url.json").write_text(json.dumps(url))
    return os.pathsep.join([str(folder / "site"), str(source / "src")])


def _installed(folder: Path, name: str, module: str, needs: list[str], version: str = "1.0") -> None:
    """Metadata of an installed distribution with one plugin."""
    info = folder / f"stillhouse_{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: stillhouse-{name}", f"Version: {version}", *needs]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text(f"[stillhouse.plugins]\n{name} = {module}\n")


def _against_python(name: str, work: object, pairs: int = 9) -> Comparison:
    return compare(f"{name}, against starting Python", work, _bare, pairs=pairs, clock=processor_seconds)  # type: ignore[arg-type]


def _crowd(folder: Path) -> str:
    """A folder of installed distributions, each a plugin with one metric."""
    for number in range(PLUGINS):
        name = f"crowd{number:02}"
        (folder / f"{name}.py").write_text(
            "from stillhouse import hookimpl\nfrom stillhouse.plugins import MetricSpec\n\n\n"
            "def zero(prediction, target):\n    return 0.0\n\n\n"
            "@hookimpl\ndef stillhouse_metrics():\n"
            f"    return [MetricSpec(name='zero', summary='Nothing', target='{name}:zero', higher_is_better=True)]\n"
        )
        _installed(folder, name, name, ["Requires-Dist: stillhouse>=0.1,<0.2"])
    return str(folder)


def _stillhouse(*arguments: str, path: str = "") -> None:
    _run("-m", "stillhouse", *arguments, path=path)


def _bare() -> None:
    _run("-c", "pass")


def _run(*arguments: str, path: str = "") -> None:
    places = [place for place in (path, os.environ.get("PYTHONPATH", "")) if place]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
