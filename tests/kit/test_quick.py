"""``stillhouse plugins check --quick``: targets are read, not imported, and say the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import SpecError
from stillhouse.plugins.component_kinds import KINDS
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.options import describe_options, options_of
from stillhouse.plugins.reading import read_component, read_target
from stillhouse.testing.plan import Plan

CORE = [each for each in Manager(installed=False).registry.components() if KINDS[each.kind].given is not None]


@pytest.mark.parametrize("component", CORE, ids=lambda each: f"{each.kind}:{each.id}")
def test_what_is_read_is_what_is_imported(component: Any) -> None:
    for package in component.spec.requires:
        pytest.importorskip(package)
    said, real = options_of(read_component(component).load()), options_of(component.load())
    assert [(each.name, each.required, each.help) for each in said] == [
        (each.name, each.required, each.help) for each in real
    ]
    assert read_target(component.spec.target, who="test") is not None, "its source says enough"
    types = {each["name"]: each["type"] for each in describe_options(component)}
    for each in describe_options(read_component(component)):
        assert each["type"] in (types[each["name"]], "any")


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("stillhouse.objectives.nothing:DKD", "there is no module 'stillhouse.objectives.nothing'"),
        ("no_such_package_at_all.a:b", "there is no module"),
        ("stillhouse.objectives.prediction:DDK", "has no 'DDK'"),
    ],
)
def test_target_that_is_not_there_is_told(target: str, what: str) -> None:
    with pytest.raises(SpecError, match=what):
        read_target(target, who="test")


def test_source_that_says_too_little_is_left_to_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "read_me.py").write_text(
        "import functools\nfrom dataclasses import dataclass\n\n"
        "def plain(task, *, width: int = 1): ...\n\n"
        "made = functools.partial(plain, width=2)\n\n"
        "@dataclass\nclass Record:\n    width: int = 1\n\n"
        "class Child(Record): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("made", "Record", "Child"):
        assert read_target(f"read_me:{name}", who="test") is None
    found = read_target("read_me:plain", who="test")
    assert [each.name for each in options_of(found)] == ["width"]
    assert "read_me" not in sys.modules


def test_plugin_and_its_recipes_are_checked_without_torch(distribution: Any) -> None:
    code = (
        "import sys\nfrom stillhouse.cli import main\n"
        "status = main(['plugins', 'check', 'proof', '--quick', '--json'])\n"
        "assert 'torch' not in sys.modules\nsys.exit(status)\n"
    )
    places = [str(distribution.source / "src"), str(distribution.folder / "site"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "STILLHOUSE_PLUGINS": "proof"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '"valid[recipe:proof/example]"' in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "fails", "says"),
    [
        (
            "recipes/example.yaml",
            "proof/classes",
            "proof/clases",
            "valid[recipe:proof/example]",
            "no head 'proof/clases'",
        ),
        (
            "recipes/example.yaml",
            "per_row: 2",
            "per_rows: 2",
            "valid[recipe:proof/example]",
            "has no option 'per_rows'",
        ),
        (
            "recipes/example.yaml",
            "student: proof/small",
            "student: {use: proof/small, wide: 3}",
            "valid[recipe:proof/example]",
            "has no option 'wide'",
        ),
        (
            "recipes/example.yaml",
            "student: proof/small",
            "student: {use: proof/small, width: much}",
            "valid[recipe:proof/example]",
            "does not take 'much'",
        ),
        ("metrics.py", "def top_k(*, k: int = 2)", "def top_j(*, k: int = 2)", "target[metric:proof/top-k]", "'top_k'"),
        ("metrics.py", "k: int = 2", "k=2", "options[metric:proof/top-k]", "has no type"),
        ("students.py", "task: Task, *, width", "task: Task, width", "shape[student:proof/small]", "2 positional"),
    ],
)
def test_quick_finds_what_is_wrong(file: str, old: str, new: str, fails: str, says: str, distribution: Any) -> None:
    distribution.change(f"src/stillhouse_proof/{file}", (old, new))
    manager, record = distribution.load()
    failed = [each for each in Plan(manager, record, quick=True).report().checks if each.outcome == "failed"]
    assert failed[0].id == fails
    assert says in failed[0].problem
    assert {each.id.partition("[")[0] for each in failed[1:]} <= {"valid"}
