"""The tutorial 'Write a plugin', followed to the letter."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli import main
from stillhouse.plugins import using
from stillhouse.testing import run_tiny

PAGE = Path(__file__).parents[2] / "docs" / "plugins" / "write.md"
PUBLISH = PAGE.with_name("publish.md")
METHOD = PAGE.with_name("method.md")


def follow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the reader of the page has in the end."""
    text = PAGE.read_text(encoding="utf-8")
    (command,) = re.findall(r"^\$ stillhouse (plugins new .*)$", text, flags=re.MULTILINE)
    monkeypatch.chdir(folder)
    assert main(command.split()) == 0
    source = folder / "stillhouse-diabetes"
    files = re.findall(r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", text, flags=re.DOTALL)
    assert len(files) == 5
    for path, code in files:
        assert (source / path).exists() or "tests" in path, f"the scaffold has no {path}"
        (source / path).write_text(code, encoding="utf-8")
    return source


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    source = follow(tmp_path, monkeypatch)
    monkeypatch.syspath_prepend(str(source / "src"))
    yield importlib.import_module("stillhouse_diabetes.plugin")
    for name in [name for name in sys.modules if name.startswith("stillhouse_diabetes")]:
        del sys.modules[name]


def test_what_the_page_writes_is_a_plugin_whose_recipe_runs(imported: Any) -> None:
    with using(imported, name="diabetes") as manager:
        summary = run_tiny("diabetes/example", manager=manager)
    assert summary["dataset"]["id"] == "diabetes/progression"
    assert summary["student"]["component"] == "diabetes/small"


def test_the_code_of_the_publishing_page_marks_what_is_deprecated(imported: Any) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PUBLISH.read_text(), flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(code, "docs/plugins/publish.md", "exec", dont_inherit=True), namespace)
    from stillhouse.plugins.options import options_of

    names = {each.name for each in options_of(namespace["cnn"])}
    assert names == {"width", "dropout"}


def test_the_method_of_its_page_runs_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = METHOD.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n# my_method.py\n(.*?)```", text, flags=re.DOTALL)
    assert len(code.splitlines()) < 40
    commands = re.findall(r"^\$ stillhouse (.*)$", text, flags=re.MULTILINE)
    (tmp_path / "my_method.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_method", raising=False)
    assert main([*commands[0].split(), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["components"]
    assert [each["name"] for each in shown["options"]] == ["first"]
    few = ["--set", "dataset.rows=300", "--set", "dataset.unlabelled=0", "--set", "train.teacher.epochs=1"]
    few += ["--set", "train.student.epochs=2", "--set", "evaluate.latency_samples=5", "--seeds", "0"]
    assert main([*commands[1].split(), *few, "--quiet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["method"] == {"id": "my_method:TwoSteps", "options": {"first": 4}}
    assert [each["name"] for each in summary["method_facts"]["table"]] == ["gain_of_second_step"]
    sys.modules.pop("my_method")


@pytest.mark.slow
def test_the_tutorials_plugin_is_green_where_it_is_installed(
    stranger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = follow(tmp_path, monkeypatch)
    stranger.install("-e", ".", cwd=source)
    try:
        shown = stranger.run("python", "-m", "pytest", cwd=source)
        assert "contract of plugin 'diabetes': " in shown
        assert "failed" not in shown
        done = stranger.run("stillhouse", "run", "diabetes/example", "--quiet", "--json", cwd=source)
        assert json.loads(done)["summary"]["verdict"]["paired_seeds"] == 5
        new = tmp_path / "new.csv"
        new.write_text("age,sex,bmi,bp,s1,s2,s3,s4,s5,s6\n59,2,32.1,101,157,93.2,38,4,4.86,87\n", encoding="utf-8")
        stranger.run(
            "stillhouse", "predict", "runs/diabetes-example", str(new), "--out", str(tmp_path / "told.csv"), cwd=source
        )
        header, row = (tmp_path / "told.csv").read_text(encoding="utf-8").split()
        assert header.startswith("row,")
        assert 50 < float(row.split(",")[1]) < 350
    finally:
        stranger.run("python", "-m", "pip", "uninstall", "--yes", "--quiet", "stillhouse-diabetes", cwd=tmp_path)
