"""What components may ask of the framework beside the plain case: teachers that are asked and never trained, members of
ensembles, objectives that remember rows."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

import stillhouse
from stillhouse import hookimpl
from stillhouse.cli.run_cmd import _print_result
from stillhouse.errors import IncompatibleError, OptionError, PluginError, RunFolderError
from stillhouse.kinds import OutputKind
from stillhouse.methods import Method
from stillhouse.plugins.manager import Manager, default_manager, using
from stillhouse.plugins.specs import MethodSpec, ObjectiveSpec, StudentSpec, TeacherSpec
from stillhouse.recipe.check import resolve
from stillhouse.teachers import CachedTeacher, EnsembleTeacher, StoredTeacher, write_cache
from stillhouse.types import Batch, DataInfo, Outputs, Split, Task, TensorSplit


def recipe(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "seam",
        "head": "core/multiclass",
        "dataset": {"use": "core/synthetic", "rows": 160},
        "teacher": {"use": "core/mlp", "hidden": [16]},
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {"teacher": {"epochs": 2, "batch_size": 32}, "student": {"epochs": 2, "batch_size": 32}},
        "evaluate": {"latency_samples": 20, "throughput_batch": 32},
        "seeds": [0],
    }
    return {**values, **changes}


class Nearest:
    """The class whose centre is nearest: a rule that nobody trains."""

    asked: ClassVar[int] = 0

    def __init__(self, centres: Tensor, revision: str) -> None:
        self.centres, self.revision = centres, revision

    def __call__(self, batch: Batch) -> Outputs:
        Nearest.asked += len(batch["index"])
        inputs = batch["x"].flatten(1)
        return Outputs(-torch.cdist(inputs, self.centres.to(inputs)))


def nearest(task: Task, *, spread: float = 1.0, revision: str = "a") -> Nearest:
    generator = torch.Generator().manual_seed(task.seed)
    (spec,) = task.inputs.values()
    return Nearest(torch.randn(task.outputs, *spec.shape, generator=generator).flatten(1) * spread, revision)


def nameless(task: Task) -> Any:
    return lambda batch: Outputs(torch.zeros(len(batch["index"]), task.outputs))


class Remembers(nn.Module):
    """Pulls each row to what the student said of it before: a memory by row."""

    prepared: ClassVar[list[tuple[DataInfo, Split]]] = []

    def prepare(self, info: DataInfo, rows: Split) -> None:
        Remembers.prepared.append((info, rows))
        self.register_buffer("memory", torch.zeros(int(rows.index().max()) + 1, len(info.classes or ())))
        self.register_buffer("met", torch.zeros(int(rows.index().max()) + 1))

    def forward(self, student: Tensor, teacher: Tensor, *, index: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is None, "the rows have no mask, which is optional"
        loss = (student - teacher).square().mean() + 0.1 * (student - self.memory[index]).square().mean()
        if self.training:
            self.memory[index] = student.detach()
            self.met[index] += 1
        return loss


class WantsMore(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor, *, depth: Tensor) -> Tensor:
        return (student - teacher).square().mean()


class Kept(Method):
    """Offline, and what the objective remembers is noted."""

    def train(self, context: Any, student: Any) -> Any:
        learner = self.step(context, student)
        context.fit(learner)
        (term,) = learner.loss.terms  # type: ignore[attr-defined]
        rows = context.splits.train.index()
        context.note(met=float(term.objective.met[rows].min()), width=term.objective.memory.shape[1])
        return student


@pytest.fixture
def manager() -> Iterator[Manager]:
    module = types.SimpleNamespace(
        stillhouse_teachers=hookimpl(
            lambda: [
                TeacherSpec(name="nearest", target=f"{__name__}:nearest", summary="a rule", asked=True),
                TeacherSpec(name="nameless", target=f"{__name__}:nameless", summary="no revision", asked=True),
                TeacherSpec(name="undeclared", target=f"{__name__}:nearest", summary="not said to be asked"),
            ]
        ),
        stillhouse_students=hookimpl(
            lambda: [StudentSpec(name="nearest-student", target=f"{__name__}:nearest", summary="cannot learn")]
        ),
        stillhouse_objectives=hookimpl(
            lambda: [
                ObjectiveSpec(
                    name="remembers", target=f"{__name__}:Remembers", summary="memory", extras=("index", "mask")
                ),
                ObjectiveSpec(name="more", target=f"{__name__}:WantsMore", summary="depth", extras=("depth",)),
            ]
        ),
        stillhouse_methods=hookimpl(
            lambda: [MethodSpec(name="kept", target=f"{__name__}:Kept", summary="notes the memory")]
        ),
    )
    with using(module, name="own") as made:
        yield made


def run(manager: Manager, folder: Path, **changes: Any) -> stillhouse.RunResult:
    return stillhouse.run(recipe(**changes), out=folder, manager=manager)


def test_a_teacher_that_is_asked_is_neither_trained_saved_nor_timed_and_its_answers_are_kept(
    manager: Manager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(manager, tmp_path / "run", teacher={"use": "own/nearest"})
    summary, teacher = result.summary, result.summary["teacher"]
    assert teacher["component"] == "own/nearest"
    assert 0 <= teacher["metrics"]["test"]["accuracy"] <= 1
    costs = ("parameters", "bytes", "flops", "latency_ms", "throughput_per_s")
    assert [teacher[name] for name in costs] == [None] * 5
    assert summary["student"]["latency_ms"]["p50"] > 0
    assert (summary["verdict"]["compression"], summary["verdict"]["speedup"]) == (None, None)
    assert "times" not in summary["verdict"]["sentence"]
    assert not list((result.folder / "teacher").glob("member-*"))
    assert result.report is not None
    assert "own/nearest" in result.report.read_text()
    _print_result(summary, result.report)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("teacher"))
    assert line.count("?") == 3

    rows = sum(summary["dataset"]["rows"].values())
    Nearest.asked = 0
    again = stillhouse.run(recipe(teacher={"use": "own/nearest"}), out=tmp_path / "run", manager=manager, seeds=[0, 1])
    assert again.summary["student"]["seeds"] == [0, 1]
    assert Nearest.asked == 0, "a second seed learns from answers that are kept"
    changed = {"teacher": {"use": "own/nearest", "revision": "b"}}
    stillhouse.run(recipe(**changed), out=tmp_path / "run", manager=manager, overwrite=True)
    assert Nearest.asked == rows, "every row once, as the revision is another"


def test_a_revision_that_changes_by_itself_is_noticed(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(manager, tmp_path / "run", teacher={"use": "own/nearest"})
    before = load_file(first.folder / "student" / "seed-0" / "model.safetensors")
    genuine = Nearest.__init__

    def newer(self: Nearest, centres: Tensor, revision: str) -> None:
        genuine(self, centres + 1, "newer")

    monkeypatch.setattr(Nearest, "__init__", newer)
    changed = recipe(teacher={"use": "own/nearest"})
    with pytest.raises(RunFolderError, match=r"has changed \(student, seed 0: teacher\)"):
        stillhouse.run(changed, out=tmp_path / "run", manager=manager)
    stillhouse.run(changed, out=tmp_path / "run", manager=manager, overwrite=True)
    after = load_file(first.folder / "student" / "seed-0" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_an_asked_teacher_joins_an_ensemble_and_teaches_an_estimator(manager: Manager, tmp_path: Path) -> None:
    members = [{"use": "own/nearest"}, {"use": "core/mlp", "hidden": [8]}]
    summary = run(manager, tmp_path / "run", teacher={"members": members}, student="core/decision-tree").summary
    assert (summary["teacher"]["bytes"], summary["teacher"]["parameters"]) == (None, None)
    assert (tmp_path / "run" / "teacher" / "member-1" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"teacher": {"use": "own/nearest", "out_of_fold": 3}}, "no folds of it"),
        (
            {
                "teacher": {"use": "own/nearest"},
                "objectives": {"soft": [{"use": "core/hints", "student": "0", "teacher": "0"}]},
            },
            "has no modules to tap",
        ),
        ({"teacher": "own/nameless"}, "promises a teacher source"),
        ({"teacher": "own/undeclared"}, "cannot be trained"),
        ({"student": "own/nearest-student"}, "cannot be trained"),
    ],
)
def test_what_an_asked_teacher_cannot_do_is_told(
    changes: dict[str, Any], what: str, manager: Manager, tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleError, match=what):
        run(manager, tmp_path / "run", **changes)


def test_members_of_an_ensemble_are_the_same_live_and_cached(tmp_path: Path) -> None:
    split = TensorSplit({"x": torch.randn(7, 3), "index": torch.arange(7) + 10})
    predictions = [torch.randn(7, 4) for _ in range(3)]
    sources = [StoredTeacher(split.index(), each) for each in predictions]
    live = EnsembleTeacher(sources, weights=[1.0, 2.0, 3.0], kind=OutputKind.MULTICLASS)
    for members in (True, False):
        folder = tmp_path / str(members)
        write_cache(live, split, folder, key="k", members=members, batch_size=3)
        batch = split.batch([5, 0, 2])
        cached, asked = CachedTeacher((folder, "k"))(batch), live(batch)
        assert asked.members is not None
        assert asked.members.shape == (3, 3, 4)
        torch.testing.assert_close(asked.members, torch.stack(predictions)[:, [5, 0, 2]])
        torch.testing.assert_close(cached.prediction, asked.prediction)
        if members:
            torch.testing.assert_close(cached.members, asked.members)
        else:
            assert cached.members is None


def test_an_objective_that_remembers_rows_meets_each_by_its_index(manager: Manager, tmp_path: Path) -> None:
    Remembers.prepared.clear()
    changes = {"objectives": {"soft": ["own/remembers"]}, "method": "own/kept"}
    summary = run(manager, tmp_path / "run", **changes).summary
    facts = summary["method_facts"]["per_seed"][0]
    assert facts["met"] == 2.0, "once in each of two epochs"
    ((info, rows),) = Remembers.prepared
    assert info.classes is not None
    assert facts["width"] == len(info.classes)
    assert len(rows) == summary["dataset"]["rows"]["train"]


def test_an_extra_that_no_row_has_is_told(manager: Manager, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="objective 'own/more' wants 'depth', which the rows do not have"):
        run(manager, tmp_path / "run", objectives={"soft": ["own/more"]})


def test_an_ensemble_of_students_teaches_and_its_recipe_runs_again_equally(tmp_path: Path) -> None:
    member = {"use": "core/mlp", "hidden": [4], "count": 3}
    one = stillhouse.run(recipe(teacher={"members": [member], "seed": 5}), out=tmp_path / "one")
    written = yaml.safe_load((one.folder / "recipe.yaml").read_text())
    assert [each["seed"] for each in written["teacher"]["members"]] == [5, 6, 7]
    made = [load_file(one.folder / "teacher" / f"member-{n}" / "model.safetensors") for n in range(3)]
    assert not torch.equal(*(next(iter(each.values())) for each in made[:2]))
    assert one.summary["teacher"]["parameters"] == 3 * one.summary["student"]["parameters"]
    two = stillhouse.run(one.folder / "recipe.yaml", out=tmp_path / "two")
    for each in ("teacher", "baseline", "student"):
        assert one.summary[each]["metrics"] == two.summary[each]["metrics"]


@pytest.mark.parametrize(("seed", "wanted"), [(None, [5, 6]), (0, [0, 1]), (3, [3, 4])])
def test_seeds_of_counted_members_follow_the_seed_that_is_given(seed: int | None, wanted: list[int]) -> None:
    member = {"use": "core/mlp", "count": 2, "seed": seed}
    resolved = resolve(recipe(teacher={"members": [member], "seed": 5}), default_manager().registry)
    assert [each.seed for each in resolved.teachers] == wanted


@pytest.mark.parametrize(("need", "unlabelled"), [("groups", 40), ("times", 40), ("unlabelled", 0)])
def test_rows_without_what_a_method_needs_are_an_error_before_anything_is_trained(
    manager: Manager, tmp_path: Path, need: str, unlabelled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = manager.registry.get("method", "core/offline")
    monkeypatch.setitem(vars(component.spec), "needs", (need,))
    rows = {"use": "core/synthetic", "rows": 120, "unlabelled": unlabelled}
    with pytest.raises(IncompatibleError, match=f"needs {need}"):
        run(manager, tmp_path, dataset=rows)
    assert not (tmp_path / "teacher").exists()


class NotesWhatJsonLacks(Method):
    def train(self, context: Any, student: Any) -> Any:
        context.note(odd=object)


def test_a_fact_that_json_does_not_have_is_named(manager: Manager, tmp_path: Path) -> None:
    with (
        pytest.raises(PluginError, match="the fact 'odd' cannot be kept"),
        patch("stillhouse.pipeline.student.make_method", lambda context: NotesWhatJsonLacks()),
    ):
        run(manager, tmp_path)


def test_a_module_that_the_student_lacks_is_an_error_before_the_teacher_is_trained(
    manager: Manager, tmp_path: Path
) -> None:
    soft = [{"use": "core/hints", "student": "absent", "teacher": "backbone"}]
    with pytest.raises(IncompatibleError, match="'core/mlp' has no module 'absent'") as caught:
        run(manager, tmp_path, objectives={"soft": soft})
    assert caught.value.where == "objectives.soft.0, student"
    assert not (tmp_path / "teacher").exists()


def test_options_of_the_default_method_are_those_of_offline(manager: Manager) -> None:
    with pytest.raises(OptionError, match="method 'core/offline' has no option 'generations'"):
        resolve(recipe(), manager.registry, overrides=["method.generations=2"])
