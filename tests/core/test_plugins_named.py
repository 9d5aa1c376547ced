"""``use: module:Attribute``: somebody's own class without a distribution and without a spec."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli import main
from stillhouse.errors import (
    IncompatibleError,
    MissingDependencyError,
    PluginError,
    StillhouseError,
    UnknownComponentError,
)
from stillhouse.pipeline import run
from stillhouse.plugins import Manager
from stillhouse.plugins.specs import MetricSpec, ObjectiveSpec

METHOD = '''
"""A method of one's own."""
from stillhouse.methods import Method


class LabelsLast(Method):
    """The teacher first, the labels last.

    Args:
        soft_epochs: epochs of the first step.
    """

    def __init__(self, *, soft_epochs: int = 1) -> None:
        self.soft_epochs = soft_epochs

    def train(self, context, student):
        context.fit(context.distillation(student, alpha=0.0), phase="soft", epochs=self.soft_epochs)
        context.fit(context.supervised(student), phase="hard", epochs=1)
        context.note(steps=2)
        return student


class MeddlesWithTeacher(Method):
    def train(self, context, student):
        next(context.teachers[0].model.parameters()).data.add_(1)
        return super().train(context, student)


class NotOne:
    pass


def makes_something_else(*, size: int = 3):
    return size


class Broken(Method):
    def __init__(self, *options) -> None: ...


SIZE = 3
'''
PARTS = '''
import torch
from torch import nn


class Cosine(nn.Module):
    """One minus the cosine between the answers, where there is a label.

    Args:
        power: of the distance.
    """

    adapts = True

    def __init__(self, *, power: float = 1.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, student, teacher, *, target):
        assert len(target) == len(student)
        return (1 - nn.functional.cosine_similarity(student.flatten(1), teacher.flatten(1))).pow(self.power).mean()


class Needy(nn.Module):
    def forward(self, student, teacher, *, age):
        return student.mean()


class Tiny(nn.Module):
    """One small layer.

    Args:
        width: of the layer.
    """

    def __init__(self, task, *, width: int = 8) -> None:
        super().__init__()
        (columns,) = task.inputs["x"].shape
        self.net = nn.Sequential(nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, task.outputs))

    def forward(self, x):
        return self.net(x)


def mistakes(*, weight: float = 1.0):
    """Share of wrong answers."""
    return lambda prediction, rows: float((prediction.argmax(1) != rows["target"]).float().mean()) * weight


mistakes.higher_is_better = False
'''
SMALL: dict[str, Any] = {
    "name": "small",
    "head": "core/multiclass",
    "dataset": {"use": "core/synthetic", "rows": 200},
    "teacher": {"use": "core/mlp", "hidden": [8]},
    "student": {"use": "core/mlp", "hidden": [4]},
    "train": {"teacher": {"epochs": 1}, "student": {"epochs": 1}},
    "evaluate": {"latency_samples": 5, "throughput_batch": 8},
    "seeds": [0],
}
FEW = [
    part
    for change in (
        "dataset.rows=200",
        "dataset.unlabelled=0",
        "train.teacher.epochs=1",
        "train.student.epochs=1",
        "evaluate.latency_samples=5",
    )
    for part in ("--set", change)
]
RUN = ["run", "core/quickstart", *FEW, "--seeds", "0", "--quiet", "--json"]


@pytest.fixture(autouse=True)
def _forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "")
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "store"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    forget()
    yield
    forget()


def forget() -> None:
    """As a new process would see it."""
    sys.path[:] = [each for each in sys.path if "pytest-of" not in each]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_method", "my_parts", "my_package")]:
        del sys.modules[name]


@pytest.fixture
def method_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_method.py"
    path.write_text(METHOD)
    return path


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A package in a folder of its own, with a module that must not be imported."""
    folder = tmp_path / "work" / "my_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "my_parts.py").write_text(PARTS)
    (folder / "unrelated.py").write_text("raise RuntimeError('nobody named it')\n")
    return folder


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_method_of_a_file_runs_goes_on_and_is_in_the_manifest(
    method_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--set", "method.use=my_method:LabelsLast", "--set", "method.soft_epochs=2", "--out", "out"]
    given = [*RUN, *chosen, "--plugin", str(method_file)]
    assert main([*given, "--stop-after", "baseline"]) == 0
    capsys.readouterr()
    forget()
    assert main([*RUN, *chosen]) == 2
    told = capsys.readouterr().err
    assert "there is no module 'my_method'" in told
    assert "--plugin ./my_method.py" in told
    assert main(given) == 0
    assert answer(capsys)["summary"]["method"] == {"id": "my_method:LabelsLast", "options": {"soft_epochs": 2}}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["components"]["method"]["id"] == "my_method:LabelsLast"
    assert manifest["components"]["method"]["sha256"] == sha256(method_file)
    history = (tmp_path / "out" / "student" / "seed-0" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in history] == ["soft", "soft", "hard"]


def test_student_objective_and_metric_of_a_package(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = "my_package.my_parts"
    recipe = {
        **SMALL,
        "student": {"use": f"{module}:Tiny", "width": 5},
        "objectives": {"soft": [{"use": f"{module}:Cosine", "power": 2.0}]},
        "metrics": [f"{module}:mistakes"],
    }
    manager = Manager(installed=False, files=[parts])
    assert not [name for name in sys.modules if name.startswith("my_package")]
    summary = run(recipe, out=tmp_path / "out", manager=manager).summary
    assert summary["student"]["component"] == f"{module}:Tiny"
    test = summary["teacher"]["metrics"]["test"]
    assert test["mistakes"] == pytest.approx(1 - test["accuracy"])
    components = json.loads((tmp_path / "out" / "manifest.json").read_text())["components"]
    for role in ("student", "objective.0", "metric.0"):
        assert components[role]["sha256"] == sha256(parts / "my_parts.py")
    assert "my_package.unrelated" not in sys.modules
    spec = manager.registry.get("objective", f"{module}:Cosine").spec
    assert isinstance(spec, ObjectiveSpec)
    assert (spec.extras, spec.adapts, spec.level) == (("target",), True, "prediction")
    metric = manager.registry.get("metric", f"{module}:mistakes").spec
    assert isinstance(metric, MetricSpec)
    assert not metric.higher_is_better
    # What was trained is loaded by whoever gives the folder again, and by nobody else.
    forget()
    export = ["export", str(tmp_path / "out"), "--format", "torch"]
    assert main(export) == 2
    assert "there is no module 'my_package'" in capsys.readouterr().err
    assert main([*export, "--plugin", str(parts)]) == 0


def test_folder_of_modules(parts: Path) -> None:
    shutil.copy(parts / "my_parts.py", parts.parent / "my_parts.py")
    registry = Manager(installed=False, files=[parts.parent]).registry
    assert registry.get("student", "my_parts:Tiny").spec.summary == "One small layer."
    assert registry.get("student", "my_package.my_parts:Tiny").plugin.name == "my_package"


def test_changed_file_trains_again(method_file: Path, tmp_path: Path) -> None:
    recipe = {**SMALL, "method": "my_method:LabelsLast"}
    run(recipe, out=tmp_path / "out", manager=Manager(installed=False, files=[method_file]), stop_after="student")
    record = tmp_path / "out" / "student" / "seed-0" / "done.json"
    before = json.loads(record.read_text())["inputs"]["method"]
    forget()
    method_file.write_text(METHOD + "\n# changed\n")
    run(recipe, out=tmp_path / "out", manager=Manager(installed=False, files=[method_file]), stop_after="student")
    assert json.loads(record.read_text())["inputs"]["method"] != before


def test_show_finds_out_the_kind(method_file: Path, parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--plugin", str(method_file), "--plugin", str(parts), "--json"]
    for name, kind, option in (
        ("my_method:LabelsLast", "method", "soft_epochs"),
        ("my_package.my_parts:Tiny", "student", "width"),
        ("my_package.my_parts:Cosine", "objective", "power"),
        ("my_package.my_parts:mistakes", "metric", "weight"),
    ):
        assert main(["show", name, *given]) == 0
        (shown,) = answer(capsys)["components"]
        assert (shown["id"], shown["kind"]) == (name, kind)
        assert [each["name"] for each in shown["options"]] == [option]
    assert main(["show", "my_package.my_parts:Tiny", "--kind", "teacher", *given]) == 0
    assert answer(capsys)["components"][0]["kind"] == "teacher"


@pytest.mark.parametrize(
    ("kind", "name", "error", "what", "fix"),
    [
        ("method", "my_metod:LabelsLast", UnknownComponentError, "no module 'my_metod'", "did you mean 'my_method'?"),
        ("method", "nowhere:LabelsLast", UnknownComponentError, "no module 'nowhere'", "--plugin ./nowhere.py"),
        ("method", "stillhouse.nowhere:A", UnknownComponentError, "'stillhouse.nowhere'", "'stillhouse' is there"),
        ("method", "my_method:LabelLast", UnknownComponentError, "has no 'LabelLast'", "'LabelsLast'"),
        ("method", "my-method:LabelsLast", UnknownComponentError, "is not 'package.module:attribute'", "e.g."),
        ("method", "my_method:NotOne", IncompatibleError, "does not derive from", "class NotOne(Method)"),
        ("method", "my_method:SIZE", PluginError, "is a int, not a class or function", "target"),
        (
            "objective",
            "my_package.my_parts:Needy",
            IncompatibleError,
            "takes 'age', which nothing gives",
            "target, mask",
        ),
        ("objective", "my_method:NotOne", IncompatibleError, "has no forward(student, teacher)", "torch.nn.Module"),
        ("objective", "my_package.my_parts:Tiny", PluginError, "1 positional parameter", "keyword-only"),
        ("student", "my_package.unrelated:Tiny", PluginError, "RuntimeError: nobody named it", "correct the module"),
        ("student", "my_package.lacking:Tiny", MissingDependencyError, "'package_that_nobody_has'", "pip install"),
        ("dataset", "my_method:NotOne", IncompatibleError, "a dataset cannot be named by its module", "DatasetSpec"),
        ("head", "my_method:NotOne", IncompatibleError, "a head cannot be named by its module", "HeadSpec"),
    ],
)
def test_what_cannot_be_named_is_told(
    kind: str, name: str, error: type[StillhouseError], what: str, fix: str, method_file: Path, parts: Path
) -> None:
    (parts / "lacking.py").write_text("import package_that_nobody_has\n")
    registry = Manager(installed=False, files=[method_file, parts]).registry
    with pytest.raises(error) as caught:
        registry.get(kind, name)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_method_that_makes_something_else_is_told(method_file: Path, tmp_path: Path) -> None:
    manager = Manager(installed=False, files=[method_file])
    with pytest.raises(IncompatibleError, match="made int, not a stillhouse"):
        run({**SMALL, "method": "my_method:makes_something_else"}, out=tmp_path / "out", manager=manager)


def test_method_that_changes_the_teacher_is_told_each_time(method_file: Path, tmp_path: Path) -> None:
    """The second start took the student of the first for finished."""
    manager = Manager(installed=False, files=[method_file])
    for _ in range(2):
        with pytest.raises(StillhouseError, match="the teacher changed during distillation"):
            run({**SMALL, "method": "my_method:MeddlesWithTeacher"}, out=tmp_path / "out", manager=manager)


def test_folder_that_brings_nothing_or_the_name_of_another_package(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    manager = Manager(installed=False, files=[tmp_path / "empty"])
    with pytest.raises(PluginError, match=r"plugin folder .* is invalid: the folder holds no Python module"):
        manager.require_requested()
    other = tmp_path / "json"
    other.mkdir()
    (other / "__init__.py").write_text("")
    with pytest.raises(PluginError, match="has the name of another module"):
        Manager(installed=False, files=[other]).registry.get("student", "json:loads")


def test_installed_function_needs_no_plugin() -> None:
    component = Manager(installed=False).registry.get("student", "stillhouse.components.models:linear")
    assert component.spec.name == "linear"
    assert component.plugin.sha256
