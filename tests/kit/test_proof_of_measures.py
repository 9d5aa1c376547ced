"""The kit is proven, part three: metrics and heads that broadcast, and whose code an exception came out of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli import main
from stillhouse.plugins.manager import Manager
from stillhouse.testing.plan import Plan

PLUGIN = """
from stillhouse import hookimpl
from stillhouse.heads import Regression
from stillhouse.heads.checks import judged
from stillhouse.plugins import HeadSpec, MetricSpec, StudentSpec
from torch import nn


@hookimpl
def stillhouse_metrics():
    target = f"{__name__}:error"
    yield MetricSpec(name="error", target=target, summary="s", kinds=("regression",), higher_is_better=False)


@hookimpl
def stillhouse_heads():
    target = f"{__name__}:Value"
    yield HeadSpec(
        name="value", target=target, summary="s", output="regression", primary="rmse", higher_is_better=False
    )


@hookimpl
def stillhouse_students():
    yield StudentSpec(name="line", target=f"{__name__}:Line", summary="s", inputs=("x",), kinds=("regression",))


def error():
    def metric(prediction, rows):
        judged(prediction, rows, head="error")
        return float((prediction.squeeze(1) - rows["target"]).abs().mean())

    return metric


class Value(Regression):
    def hard_loss(self, prediction, batch):
        return ((prediction.squeeze(1) - batch["target"]) ** 2).mean()


class Line(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.layer = nn.Linear(task.inputs["x"].shape[-1], task.outputs)

    def forward(self, x):
        return self.layer(x)
"""


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    text = PLUGIN
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file = folder / f"{''.join(each if each.isalnum() else '_' for each in folder.name)}.py"
    file.write_text(text)
    return file


def outcomes(file: Path, *names: str) -> dict[str, Any]:
    manager = Manager(installed=False)
    plan = Plan(manager, manager.add_file(file))
    chosen = [each for each in plan.ids if each.partition("[")[0] in names]
    return {each: plan.run(each) for each in chosen}


def test_good_metric_head_and_student_pass(tmp_path: Path) -> None:
    assert {each.outcome for each in outcomes(write(tmp_path), "metrics", "loss", "forward").values()} == {"passed"}


@pytest.mark.parametrize(
    ("check", "old", "says"),
    [
        (
            "metrics",
            '(prediction.squeeze(1) - rows["target"])',
            "the metric broadcasts: it compares the prediction [N, 1]",
        ),
        (
            "loss",
            '(prediction.squeeze(1) - batch["target"])',
            "hard_loss broadcasts: it compares the prediction [N, 1]",
        ),
    ],
)
def test_broadcasting_is_told_as_such(check: str, old: str, says: str, tmp_path: Path) -> None:
    found = outcomes(write(tmp_path, (old, old.replace(".squeeze(1)", ""))), check)
    failed = [each for each in found.values() if each.outcome == "failed"]
    assert len(failed) == 1
    assert says in failed[0].problem
    assert "squeeze" in failed[0].fix


def test_exception_of_a_plugin_names_component_line_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, ("        return self.layer(x)", "        return self.layer(x[:, :3])"))
    line = file.read_text().splitlines().index("        return self.layer(x[:, :3])") + 1
    (check,) = outcomes(file, "forward").values()
    student = f"student '{file.stem}/line', {file}:{line} in Line.forward"
    assert check.problem.startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert f"(at {student})" in check.problem  # and not the line of torch that raised it
    assert check.fix == f"correct line {line} of {file.name}: return self.layer(x[:, :3])"

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "head: core/regression\ndataset: {use: core/synthetic, kind: regression, rows: 100}\n"
        f"teacher: {{use: core/mlp, hidden: [4]}}\nstudent: {file.stem}/line\n"
        "train: {teacher: {epochs: 1}, student: {epochs: 1}}\nseeds: [0]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(recipe), "--plugin", str(file), "--quiet"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"An exception came out of plugin '{file.stem}'" in told
    assert "Line.forward" in told
    assert "not a mistake of yours" not in told


SEVERAL = """
from torch import nn

from stillhouse import hookimpl
from stillhouse.heads.checks import judged
from stillhouse.plugins import MetricSpec, ObjectiveSpec


@hookimpl
def stillhouse_metrics():
    target = f"{__name__}:peak"
    yield MetricSpec(name="peak", target=target, summary="s", kinds=("regression",), higher_is_better=False)


@hookimpl
def stillhouse_objectives():
    yield ObjectiveSpec(name="steps", target=f"{__name__}:Steps", summary="s", kinds=("regression",))


def peak():
    def metric(prediction, rows):
        judged(prediction, rows, head="peak")
        return float((prediction.amax(1) - rows["target"].amax(1)).abs().mean())

    return metric


class Steps(nn.Module):
    def forward(self, student, teacher):
        return (student.diff(dim=1) - teacher.diff(dim=1)).square().mean()
"""


def test_measures_of_several_values_a_row_are_given_several(tmp_path: Path) -> None:
    file = tmp_path / "several_values.py"
    file.write_text(SEVERAL)
    found = outcomes(file, "metrics", "edges", "loss")
    assert {each.problem for each in found.values()} == {""}
    assert len(found) == 3
    file = tmp_path / "several_wrong.py"
    file.write_text(SEVERAL.replace(".square().mean()", ".detach().mean()").replace(".amax", ".largest"))
    found = outcomes(file, "metrics", "loss")
    assert {each.outcome for each in found.values()} == {"failed"}
    assert "for regression predictions [6, 1] is tensor(nan)" in found["loss[objective:several_wrong/steps]"].problem
