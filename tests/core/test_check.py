"""`stillhouse check`: what is wrong is told without training, and what a run would cost."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import stillhouse
from stillhouse.cli import main
from stillhouse.errors import IncompatibleError, StillhouseError, nearest
from stillhouse.evaluation.report.format import classes
from stillhouse.pipeline.checking import check
from stillhouse.types import Task

SMALL = (
    "dataset.rows=240",
    "dataset.unlabelled=60",
    "teacher.hidden=[16]",
    "student.hidden=[8]",
    "train.teacher.epochs=2",
    "train.student.epochs=3",
    "train.student.batch_size=60",
    "seeds=[0, 1]",
)

HINTS = "{use: core/hints, student: backbone.1, teacher: backbone.1}"


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that trains may be called."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a check must not train")

    for name in (
        "methods.context.fit",
        "pipeline.models.fit",
        "pipeline.models.fit_hard",
        "methods.offline.fit_distilled",
    ):
        monkeypatch.setattr(f"stillhouse.{name}", refuse)


def test_parameters_steps_and_trainings_are_those_of_a_run() -> None:
    found = check("core/quickstart", overrides=SMALL)
    assert found.problems == []
    by_role = {each.role: each for each in found.models}
    rows = found.dataset["rows"]
    inputs, outputs = found.dataset["inputs"]["x"]["shape"][0], found.head["outputs"]
    assert by_role["student"].parameters == (inputs + 1) * 8 + (8 + 1) * outputs
    assert by_role["baseline"].trainings == by_role["student"].trainings == 2
    assert by_role["student"].steps == 3 * -(-rows["train"] // 60)
    assert all(each.seconds is not None and each.seconds > 0 for each in found.models)
    assert found.seconds >= sum(each.seconds or 0 for each in found.models)
    assert found.unknown == []


def test_classes_and_the_event_are_told() -> None:
    said = classes(check("core/quickstart", overrides=SMALL).dataset)
    assert re.fullmatch(r"(class-\d \(\d+\)(, )?){4} training rows", said)
    found = check("core/quickstart", overrides=[*SMALL, "dataset.kind=binary", "head=core/binary"]).dataset
    assert found["event"] == found["classes"][1]["name"]
    assert sum(each["rows"] for each in found["classes"]) == found["rows"]["train"]
    assert classes(found).endswith(f"the event to find is '{found['event']}'")
    assert classes({"classes": [{"name": "a", "rows": 1200}]}, count="{:,}".format) == "a (1,200) training rows"
    # What a dataset counts for segmentation are pixels, no rows.
    dense = check("core/quickstart", overrides=[*SMALL, "dataset.kind=segmentation", "head=core/segmentation"]).dataset
    assert [each["rows"] for each in dense["classes"]] == [None] * len(dense["classes"])
    many = [{"name": str(each), "rows": 10 + each} for each in range(30)]
    assert classes({"classes": many}) == "30 classes of 10 to 39 training rows"
    assert classes({"classes": [{"name": name, "rows": None} for name in "ab"], "event": None}) == "a, b"
    assert classes({"classes": None, "event": None}) == classes({}) == ""


def test_a_test_of_few_rows_is_told() -> None:
    few = check("core/quickstart", overrides=["dataset.rows=100"])
    assert few.dataset["rows"]["test"] < 30
    assert any(each.startswith(f"the test has {few.dataset['rows']['test']} rows") for each in few.warnings)
    assert not any("the test has" in each for each in check("core/quickstart", overrides=SMALL).warnings)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (["student=core/decision-tree", "objectives.soft=[soft, core/dist]"], "learns from mixed targets"),
        (["student=core/decision-tree", "objectives.alpha={schedule: linear, start: 1, end: 0}"], "mixed targets"),
        (["objectives.soft=[{use: core/hints, student: nowhere, teacher: nowhere}]"], "has no module 'nowhere'"),
        (
            ["teacher=core/random-forest", f"objectives.soft=[{HINTS}]"],
            "a teacher that is not a network has no modules to tap",
        ),
        (["method=core/staged"], "needs a soft term of each kind"),
        (["teacher.out_of_fold=150"], "150 folds need as many rows of some class"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_before_any_training(changes: list[str], what: str, tmp_path: Path) -> None:
    found = check("core/quickstart", overrides=[*SMALL, *changes])
    assert isinstance(found.problems[0], IncompatibleError)
    assert what in str(found.problems[0])
    # A run tells it as early: the teacher is not trained for nothing.
    with pytest.raises(IncompatibleError, match=what.split("'")[0]):
        stillhouse.run("core/quickstart", overrides=[*SMALL, *changes], out=tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("objectives.soft=[{use: soft, wieght: 2}]", "did you mean 'weight'?"),
        ("teacher.out_of_fld=2", "did you mean 'out_of_fold'?"),
        ("student.hiden=[4]", "did you mean 'hidden'?"),
        ("student.nonsense=4", "known: dropout, hidden"),
        ("teacher=core/nothing-like-it", "stillhouse components --kind teacher"),
    ],
)
def test_hints_name_what_may_stand_there(change: str, hint: str) -> None:
    with pytest.raises(StillhouseError) as error:
        check("core/quickstart", overrides=[change])
    assert hint in error.value.fix


def test_a_name_that_differs_in_case_alone_is_meant() -> None:
    assert nearest("ID", ["row", "id", "identity"]) == "did you mean 'id'?"


def test_all_that_is_wrong_is_told_at_once() -> None:
    pytest.importorskip("transformers")
    changes = [
        "teacher={use: core/hf-encoder}",
        "objectives.soft=[{use: core/hints, student: backbone.1, teacher: nowhere}]",
        "method=core/staged",
    ]
    found = check("core/quickstart", overrides=[*SMALL, *changes])
    assert len(found.problems) > 1
    assert len({each.what for each in found.problems}) == len(found.problems)


@pytest.mark.parametrize(
    ("method", "phases"),
    [
        ("core/born-again", {"generation-1", "generation-2", "generation-3"}),
        ("{use: core/assistant, assistants: [{use: core/mlp, hidden: [12]}]}", {"assistant-1", "student"}),
        ("core/mutual", {""}),
    ],
)
def test_a_method_of_several_fits_is_rehearsed_whole(method: str, phases: set[str]) -> None:
    found = check("core/quickstart", overrides=[*SMALL, f"method={method}"])
    assert found.problems == []
    assert {fit.phase for fit in found.models[-1].fits} == phases


def test_estimators_have_no_steps_and_are_named() -> None:
    found = check("core/quickstart", overrides=[*SMALL, "teacher=core/random-forest", "controls=[core/pca-linear]"])
    assert found.problems == []
    assert found.unknown == ["core/random-forest", "core/pca-linear"]


class SlowAtFirst(nn.Module):
    """A student that takes a while to predict for the first time."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        (spec,) = task.inputs.values()
        self.layer, self.judged = nn.Linear(spec.shape[0], task.outputs), False

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and not self.judged:
            self.judged = True
            time.sleep(0.5)
        prediction: Tensor = self.layer(x)
        return prediction


def test_what_takes_time_once_is_not_counted_for_every_row() -> None:
    changes = [*SMALL, "dataset.rows=40000", "student=tests.core.test_check:SlowAtFirst", "train.baseline.epochs=1"]
    found = check("core/quickstart", overrides=[*changes, "train.student.epochs=1"])
    assert found.problems == []
    (fit,) = found.models[-1].fits
    rows = found.dataset["rows"]["val"]
    assert rows > 20 * 256
    assert fit.validation_seconds < 0.5 * rows / 256 / 2  # half of what it was by the first time alone


def test_a_teacher_smaller_than_its_student_is_told() -> None:
    found = check("core/quickstart", overrides=[*SMALL, "student.hidden=[64]"])
    assert found.problems == []
    (warning,) = [each for each in found.warnings if "fewer than the student" in each]
    by_role = {each.role: each.parameters for each in found.models}
    assert f"{by_role['teacher']:,} parameters, fewer than the student ({by_role['student']:,})" in warning
    assert not any("fewer than" in each for each in check("core/quickstart", overrides=SMALL).warnings)


def test_the_command_prints_a_table_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [part for change in SMALL for part in ("--set", change)]
    assert main(["check", "core/quickstart", *given]) == 0
    output = capsys.readouterr()
    assert "Nothing is wrong." in output.out
    assert [line.split()[0] for line in output.out.splitlines() if "core/mlp" in line] == [
        "teacher",
        "baseline",
        "student",
    ]
    assert main(["check", "core/quickstart", "--json", "--seeds", "0-2", *given, "--set", "method=core/staged"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["recipe"]) == (1, "core/quickstart")
    assert [each["class"] for each in document["problems"]] == ["IncompatibleError"]
    assert list(tmp_path.iterdir()) == []
