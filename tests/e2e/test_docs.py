"""The code of the documentation runs."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.cli import main
from stillhouse.plugins.manager import default_manager
from stillhouse.recipe import resolve

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def test_the_loop_of_your_own(capsys: Any) -> None:
    (code,) = [block for block in blocks("python.md", "python") if "distill(" in block]
    exec(compile(code, "docs/python.md", "exec"), {})
    assert "'loss'" in capsys.readouterr().out


def test_the_run_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (code,) = [block for block in blocks("python.md", "python") if "stillhouse.run(" in block]
    monkeypatch.chdir(tmp_path)
    tiny = '["student.width=16", "train.teacher.epochs=1", "train.student.epochs=1", "evaluate.latency_samples=20"]'
    exec(compile(code.replace('["student.width=16"]', tiny), "docs/python.md", "exec"), {})
    assert "test rmse" in capsys.readouterr().out


def test_one_file_of_hooks_brings_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in blocks("own.md", "python") if "stillhouse_students" in block]
    file = tmp_path / "my_domain.py"
    file.write_text(code)
    monkeypatch.chdir(tmp_path)
    command = [
        "run",
        "industrial/rul-demo",
        "--set",
        "student={use: my_domain/tiny}",
        "--plugin",
        str(file),
        "--seeds",
        "0",
    ]
    tiny = [
        "--set",
        "train.teacher.epochs=1",
        "--set",
        "train.student.epochs=1",
        "--set",
        "evaluate.latency_samples=20",
    ]
    assert main([*command, *tiny, "--out", "run", "--quiet"]) == 0
    manifest = yaml.safe_load((tmp_path / "run" / "manifest.json").read_text())
    assert len(manifest["components"]["student"]["sha256"]) == 64


def test_one_file_of_hooks_brings_a_teacher_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in blocks("own.md", "python") if "stillhouse_teachers" in block]
    (command,) = [block for block in blocks("own.md", "console") if "my_rules/threshold" in block]
    (tmp_path / "my_rules.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(command.removeprefix("$ ").replace("\\\n", " "))
    tiny = ["--set", "train.student.epochs=1", "--set", "evaluate.latency_samples=20", "--seeds", "0"]
    assert main([*words, *tiny, "--out", "run", "--quiet"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["teacher"]["component"] == "my_rules/threshold"
    assert summary["teacher"]["parameters"] is None


@pytest.mark.parametrize("page", ["recipes.md", "own.md", "industrial.md"])
def test_complete_recipes_of_the_pages_resolve(page: str, tmp_path: Path) -> None:
    complete = 0
    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block)
        if isinstance(values, dict) and {"head", "dataset"} <= values.keys():
            values = {"teacher": "industrial/bilstm", "student": "industrial/temporal-cnn", **values}
            path = tmp_path / "mine.yaml"
            path.write_text(yaml.safe_dump(values))
            assert resolve(path, default_manager().registry).recipe.name == "mine"
            complete += 1
    assert complete


def test_the_page_of_recipe_fields_is_that_of_the_models() -> None:
    made = runpy.run_path(str(DOCS.parent / "docsite" / "fields.py"))
    assert made["page"]() == (DOCS / "reference" / "recipe.md").read_text(), "run: python -m docsite.fields"


def test_every_environment_variable_is_on_its_page() -> None:
    sources = [*(DOCS.parent / "core" / "src").rglob("*.py"), *(DOCS.parent / "plugins").glob("*/src/**/*.py")]
    read = {name for path in sources for name in re.findall(r"STILLHOUSE_[A-Z]+(?:_[A-Z]+)*", path.read_text())}
    told = re.findall(r"STILLHOUSE_[A-Z_]+", (DOCS / "reference" / "environment.md").read_text())
    assert set(told) == read


def test_every_spec_has_a_reference() -> None:
    from stillhouse.plugins import Spec, specs

    page = (DOCS / "reference" / "specs.md").read_text()
    shown = re.findall(r"^::: stillhouse\.plugins\.specs?\.(\w+)$", page, flags=re.MULTILINE)
    known = [name for name, value in vars(specs).items() if isinstance(value, type) and issubclass(value, Spec)]
    assert sorted(shown) == sorted(known)


def test_readme_and_home_have_the_same_results() -> None:
    def results(text: str) -> list[str]:
        return [line.replace("](docs/", "](") for line in text.splitlines() if line.startswith("| ") and "×" in line]

    of_readme = results((DOCS.parent / "README.md").read_text())
    assert of_readme == results((DOCS / "index.md").read_text())
    assert len(of_readme) == 10


def test_the_gallery_lists_the_reports_that_are_there(tmp_path: Path) -> None:
    hooks = runpy.run_path(str(DOCS.parent / "docsite" / "hooks.py"))
    page = hooks["on_page_markdown"]
    asked = page.__globals__
    text = (DOCS / "gallery.md").read_text()
    asked["INDEX"] = tmp_path / "index.json"
    assert "`make gallery`" in page(text)
    made = [{"recipe": "core/quickstart", "file": "core-quickstart.html", "sentence": "No proof."}]
    asked["INDEX"].write_text(json.dumps(made))
    assert "| [`core/quickstart`](gallery/core-quickstart.html) | No proof. |" in page(text)
