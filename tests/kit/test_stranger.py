"""As somebody who has the documentation and the package index only: wheels, an environment of its own, our commands."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "stillhouse-law"

pytestmark = pytest.mark.slow


def test_new_plugin_installs_keeps_the_contract_and_trains(stranger: Any, tmp_path: Path) -> None:
    stranger.run("stillhouse", "plugins", "new", "court", cwd=tmp_path)
    source = tmp_path / "stillhouse-court"
    stranger.install("-e", ".", cwd=source)
    try:
        shown = stranger.run("python", "-m", "pytest", cwd=source)
        assert "contract of plugin 'court': " in shown
        assert " 0 failed" not in shown
        done = stranger.run("stillhouse", "run", "court/example", "--quiet", "--json", cwd=source)
        summary = json.loads(done)["summary"]
        assert summary["verdict"]["paired_seeds"] == 3
        assert (source / "runs" / "court-example" / "report.html").exists()
        # A change of pyproject.toml that is not in force is told, by the check and by the tests.
        project = source / "pyproject.toml"
        project.write_text(project.read_text().replace('version = "0.1.0"', 'version = "0.2.0"'))
        told = stranger.run("stillhouse", "plugins", "check", ".", "--quick", cwd=source, fails=True)
        assert "the version is 0.2.0, installed is 0.1.0" in told
        assert f"pip install -e {source}" in told
    finally:
        stranger.run("python", "-m", "pip", "uninstall", "--yes", "--quiet", "stillhouse-court", cwd=tmp_path)


def test_example_plugin_works_from_its_wheel(stranger: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "runs", ".*_cache"))
    wheel = stranger.build(source, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {"stillhouse_law/plugin.py", "stillhouse_law/recipes/judgments.yaml", "stillhouse_law/py.typed"} <= set(
        names
    )
    assert not [name for name in names if name.startswith(("tests/", "src/"))]
    stranger.install(str(wheel), cwd=tmp_path)
    try:
        shutil.rmtree(source / "src")  # the tests see what was installed, not the source
        shown = stranger.run("python", "-m", "pytest", "-q", cwd=source)
        assert "contract of plugin 'law': " in shown
        done = stranger.run("stillhouse", "run", "law/judgments", "--quiet", "--json", cwd=tmp_path)
        summary = json.loads(done)["summary"]
        assert summary["verdict"]["helped"] is True
        assert set(summary["controls"]) == {"law/bag-of-words"}
        manifest = json.loads((tmp_path / "runs" / "judgments" / "manifest.json").read_text())
        assert manifest["components"]["student"]["distribution"] == "stillhouse-law"
    finally:
        stranger.run("python", "-m", "pip", "uninstall", "--yes", "--quiet", "stillhouse-law", cwd=tmp_path)
