"""Runs through `stillhouse.run`: the run folder, the summary, what is repeated and what is not, and the guard rails."""

from __future__ import annotations

import html
import json
import math
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy import stats
from sklearn.tree import DecisionTreeClassifier, export_text
from torch import Tensor, nn

import stillhouse
from stillhouse import hookimpl
from stillhouse.deploy.predicting import open_run
from stillhouse.errors import (
    DataError,
    IncompatibleError,
    LeakageError,
    OptionError,
    RecipeError,
    RunFolderError,
    StillhouseError,
)
from stillhouse.evaluation.measure import parameters
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.checking import check
from stillhouse.pipeline.data import check_splits, check_targets
from stillhouse.pipeline.leakage import answers_among_inputs, copied_rows, refuse_copies
from stillhouse.pipeline.stages import RECORD, differences
from stillhouse.plugins.manager import default_manager, using
from stillhouse.plugins.specs import DatasetSpec, StudentSpec
from stillhouse.progress import Silent
from stillhouse.recipe import Recipe, SoftTerm, TeacherConfig, resolve
from stillhouse.recipe.model import TeacherMember
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.trained import load
from stillhouse.types import ConcatSplit, DataInfo, Splits, SubsetSplit, TensorSpec, TensorSplit


def recipe(kind: str = "multiclass", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "tiny",
        "head": f"core/{kind}",
        "dataset": {"use": "core/synthetic", "kind": kind, "rows": 160},
        "teacher": {"use": "core/mlp", "hidden": [16]},
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {"teacher": {"epochs": 2, "batch_size": 32}, "student": {"epochs": 2, "batch_size": 32}},
        "evaluate": {"latency_samples": 20, "throughput_batch": 32},
        "seeds": [0, 1],
    }
    return {**values, **changes}


class Log(Silent):
    def __init__(self) -> None:
        self.models: list[str] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        self.models.append(label)

    def model_done(self, note: str = "") -> None:
        self.notes.append(note)

    def stage(self, name: str, note: str = "") -> None:
        self.notes.append(f"{name}: {note}")

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(folder.rglob("model.safetensors")):
        for name, tensor in load_file(path).items():
            found[f"{path.relative_to(folder)}:{name}"] = tensor
    return found


def same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() != set()
    assert all(torch.equal(first[name], second[name]) for name in first)


def figures(summary: dict[str, Any]) -> Any:
    return [summary[role]["metrics"] for role in ("teacher", "baseline", "student")], summary["student"]["per_seed"]


def test_a_run_leaves_the_promised_folder_and_says_what_happened(tmp_path: Path) -> None:
    log = Log()
    result = stillhouse.run(recipe(), out=tmp_path / "run", reporter=log)
    folder = result.folder
    for name in ("recipe.yaml", "manifest.json", "metrics.jsonl", "summary.json", "report.html", "data/info.json"):
        assert (folder / name).is_file(), name
    for model in ("teacher/member-0", "baseline/seed-0", "baseline/seed-1", "student/seed-0", "student/seed-1"):
        assert (folder / model / "model.safetensors").is_file(), model
    assert not list(folder.rglob("checkpoint.pt"))
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")], "no temporary files"
    assert log.models == ["teacher", "baseline, seed 0", "baseline, seed 1", "student, seed 0", "student, seed 1"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == result.summary
    assert summary["schema"] == 1
    assert summary["primary_metric"] == {"name": "accuracy", "higher_is_better": True}
    assert summary["teacher"]["parameters"] > summary["student"]["parameters"] == summary["baseline"]["parameters"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["components"]["student"]["id"] == "core/mlp"
    assert manifest["packages"]["torch"] == torch.__version__.partition("+")[0] or manifest["packages"]["torch"]
    assert {guard["name"] for guard in manifest["guards"]} >= {"splits disjoint", "teacher frozen"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 + 2 * 2 * 2
    assert {line["stage"] for line in lines} == {"teacher", "baseline", "student"}
    assert "core/soft-targets" in lines[-1]["train"]["terms"]


def test_every_figure_of_the_summary_comes_from_files_of_the_folder(tmp_path: Path) -> None:
    train = {"teacher": {"epochs": 2, "batch_size": 32}, "student": {"epochs": 6, "batch_size": 16, "lr": 0.02}}
    folder = stillhouse.run(recipe(seeds=[0, 1, 2], train=train), out=tmp_path / "run").folder
    summary = json.loads((folder / "summary.json").read_text())

    def accuracy(path: Path) -> float:
        kept = load_file(path)
        return float((kept["prediction"].argmax(1) == kept["target"]).float().mean())

    for split in ("val", "test"):
        expected = accuracy(folder / "teacher" / "predictions" / f"{split}.safetensors")
        assert summary["teacher"]["metrics"][split]["accuracy"] == pytest.approx(expected)
    per_seed = {}
    for role in ("baseline", "student"):
        per_seed[role] = [
            accuracy(folder / role / f"seed-{seed}" / "predictions" / "test.safetensors") for seed in (0, 1, 2)
        ]
        assert summary[role]["per_seed"]["accuracy"] == pytest.approx(per_seed[role])
        assert summary[role]["mean"] == pytest.approx(np.mean(per_seed[role]))
        assert summary[role]["metrics"]["test"]["accuracy"] == pytest.approx(np.mean(per_seed[role]))
    gains = np.subtract(per_seed["student"], per_seed["baseline"])
    verdict = summary["verdict"]
    assert verdict["gain"] == pytest.approx(gains.mean())
    assert np.ptp(gains) > 0.01
    half = stats.t.ppf(0.975, 2) * gains.std(ddof=1) / math.sqrt(3)
    assert verdict["gain_ci95"] == pytest.approx([gains.mean() - half, gains.mean() + half])
    assert summary["teacher"]["metrics"]["test"]["accuracy"] <= np.mean(per_seed["baseline"])
    assert verdict["retention"] is None, "this teacher is no better than the student alone"
    raw = json.loads((folder / "evaluate" / "latency.json").read_text())
    for name in ("teacher", "student"):
        times = np.asarray(raw["models"][name]["latency_s"]) * 1000
        assert summary[name]["latency_ms"]["p50"] == pytest.approx(np.percentile(times, 50))
        assert summary[name]["latency_ms"]["p99"] == pytest.approx(np.percentile(times, 99))
        assert summary[name]["throughput_per_s"] == pytest.approx(32 / np.median(raw["models"][name]["throughput_s"]))
    assert verdict["speedup"] == pytest.approx(
        summary["teacher"]["latency_ms"]["p50"] / summary["student"]["latency_ms"]["p50"]
    )
    state = load_file(folder / "student" / "seed-0" / "model.safetensors")
    assert summary["student"]["parameters"] == sum(tensor.numel() for tensor in state.values())
    assert verdict["compression"] == pytest.approx(summary["teacher"]["parameters"] / summary["student"]["parameters"])
    assert summary["student"]["bytes"] == (folder / "student" / "seed-0" / "model.safetensors").stat().st_size
    rows = load_file(folder / "data" / "rows.safetensors")
    assert summary["dataset"]["rows"] == {name: len(rows[name]) for name in ("train", "val", "test")}


def test_the_baseline_may_have_its_own_training_and_the_run_says_so(tmp_path: Path) -> None:
    shared = stillhouse.run(recipe(), out=tmp_path / "shared")
    values = recipe()
    values["train"] = {**values["train"], "baseline": {"epochs": 1}}
    own = stillhouse.run(values, out=tmp_path / "own")
    histories = [
        [len((run.folder / name / "seed-0/history.jsonl").read_text().splitlines()) for name in ("baseline", "student")]
        for run in (shared, own)
    ]
    assert histories[0][0] == histories[0][1] == histories[1][1] > 1 == histories[1][0]
    saved = yaml.safe_load((own.folder / "recipe.yaml").read_text())["train"]
    assert saved["baseline"] == {**saved["student"], "epochs": 1}
    manifest = json.loads((own.folder / "manifest.json").read_text())
    assert "epochs 1 (student: " in json.dumps(manifest["guards"])
    assert "baseline" not in yaml.safe_load((shared.folder / "recipe.yaml").read_text())["train"]
    with pytest.raises(RecipeError, match="epoch"):
        stillhouse.run({**values, "train": {"baseline": {"epoch": 1}}}, out=tmp_path / "wrong")


def test_a_finished_run_is_not_repeated_and_a_changed_part_is_with_the_reason(tmp_path: Path) -> None:
    first = stillhouse.run(recipe(), out=tmp_path / "run")
    again = Log()
    second = stillhouse.run(recipe(), out=tmp_path / "run", reporter=again)
    assert again.models == [], again.notes
    assert second.summary == first.summary
    changed = Log()
    change = {"out": tmp_path / "run", "overrides": ["objectives.alpha=0.9"]}
    with pytest.raises(RunFolderError, match=r"objectives\.alpha: 0\.3 -> 0\.9") as caught:
        stillhouse.run(recipe(), **change)
    assert "--overwrite" in caught.value.fix
    assert stillhouse.run(recipe(), out=tmp_path / "run").summary == first.summary
    stillhouse.export(tmp_path / "run", format="torch")
    stillhouse.run(recipe(), **change, overwrite=True, reporter=changed)
    assert not (tmp_path / "run" / "export").exists()
    assert changed.models == ["student, seed 0", "student, seed 1"]
    assert any("objectives.alpha: 0.3 -> 0.9" in note for note in changed.notes)
    more = Log()
    stillhouse.run(recipe(), out=tmp_path / "run", overrides=["objectives.alpha=0.9"], seeds=[0, 1, 2], reporter=more)
    assert more.models == ["baseline, seed 2", "student, seed 2"]
    fewer = {"out": tmp_path / "run", "overrides": ["objectives.alpha=0.9"], "seeds": [0]}
    with pytest.raises(RunFolderError, match="seeds") as caught:
        stillhouse.run(recipe(), **fewer)
    assert caught.value.fix.startswith("give --seeds 0,1,2, as it has")
    stillhouse.run(recipe(), **fewer, overwrite=True)
    assert not list((tmp_path / "run").glob("*/seed-[12]"))
    with pytest.raises(RunFolderError, match="no student of seed 2"):
        stillhouse.export(tmp_path / "run", format="torch", seed=2)


@pytest.mark.plugins
def test_the_recipe_of_a_run_folder_runs_again_with_the_paths_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    rows = "unit,time,a\n" + "".join(f"{unit},{time},{unit + time}\n" for unit in range(6) for time in range(12))
    (tmp_path / "mine" / "pumps.csv").write_text(rows, encoding="utf-8")
    values = {
        "head": "industrial/rul",
        "dataset": {"use": "industrial/run-to-failure", "path": "pumps.csv", "window": 4},
        "teacher": {"use": "core/mlp", "hidden": [8]},
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {"teacher": {"epochs": 1}, "student": {"epochs": 1}},
        "seeds": [0],
    }
    (tmp_path / "mine" / "pumps.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    first = stillhouse.run(tmp_path / "mine" / "pumps.yaml", out=tmp_path / "runs" / "pumps", stop_after="data")
    again = stillhouse.run(first.folder / "recipe.yaml", out=tmp_path / "elsewhere", stop_after="data")
    assert (again.folder / "data" / "info.json").read_text() == (first.folder / "data" / "info.json").read_text()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    ("width", "why"), [(-3, "RuntimeError"), (0, r"ValueError: '.*' has no numbers: its shape is")]
)
def test_a_student_that_its_options_make_impossible_is_told_before_the_teacher_is_trained(
    tmp_path: Path, width: int, why: str
) -> None:
    log = Log()
    module = types.SimpleNamespace(stillhouse_students=hookimpl(dense_students))
    wrong = recipe("sequence", student={"use": "net/net", "width": width})
    wrong["dataset"] = {"use": "core/synthetic", "kind": "sequence", "rows": 160}
    with (
        using(module, name="net") as manager,
        pytest.raises(OptionError, match=f"'net/net' cannot be built with width={width}: {why}"),
    ):
        stillhouse.run(wrong, out=tmp_path / "run", manager=manager, reporter=log)
    assert log.models == []


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"student": {"use": "core/decision-tree", "max_depth": -3}}, "'max_depth' parameter of DecisionTreeRegressor"),
        ({"teacher": {"use": "core/random-forest", "n_estimators": 0}}, "'n_estimators' parameter of"),
        ({"controls": [{"use": "core/pca-linear", "components": -1.0}]}, "'n_components' parameter of PCA"),
        ({"student": {"use": "core/mlp", "hidden": [0]}}, r"hidden is \[0\]"),
    ],
)
def test_an_option_that_a_training_would_refuse_is_told_before_anything_is_trained(
    tmp_path: Path, part: dict[str, Any], said: str
) -> None:
    log = Log()
    with pytest.raises(OptionError, match=said):
        stillhouse.run(recipe(**part), out=tmp_path / "run", reporter=log)
    assert log.models == []


def test_a_teacher_that_is_no_better_than_the_student_alone_is_told(tmp_path: Path) -> None:
    log = Log()
    train = {"teacher": {"epochs": 1, "lr": 1e-6}, "student": {"epochs": 12, "batch_size": 16, "lr": 0.02}}
    values = recipe(train=train, student={"use": "core/mlp", "hidden": [32]})
    summary = stillhouse.run(values, out=tmp_path / "run", reporter=log).summary
    assert summary["teacher"]["metrics"]["test"]["accuracy"] < summary["baseline"]["mean"]
    assert any("is not better than the student without it" in warning for warning in summary["warnings"])
    assert summary["verdict"]["retention"] is None
    assert "share of its quality would mean nothing" in summary["verdict"]["sentence"]


def test_a_control_that_does_as_well_without_a_teacher_is_told(tmp_path: Path) -> None:
    values = recipe(student={"use": "core/mlp", "hidden": [1]}, controls=[{"use": "core/mlp", "hidden": [32]}])
    summary = stillhouse.run(values, out=tmp_path / "run").summary
    assert summary["controls"]["core/mlp"]["mean"] > summary["student"]["mean"]
    assert any(warning.startswith("core/mlp has ") for warning in summary["warnings"])
    values["controls"] = [{"use": "core/decision-tree", "max_depth": 1}]
    values["student"] = {"use": "core/mlp", "hidden": [32]}
    values["train"] = {"student": {"epochs": 12, "batch_size": 16, "lr": 0.02}}
    summary = stillhouse.run(values, out=tmp_path / "other").summary
    assert summary["controls"]["core/decision-tree"]["mean"] < summary["student"]["mean"]
    assert not any("without any teacher" in warning for warning in summary["warnings"])


def test_two_runs_are_equal_to_the_bit_and_the_second_takes_the_teacher_from_the_store(tmp_path: Path) -> None:
    stillhouse.run(recipe(), out=tmp_path / "one")
    log = Log()
    stillhouse.run(recipe(), out=tmp_path / "two", reporter=log)
    assert any("taken from the store" in note for note in log.notes)
    same(tmp_path / "one", tmp_path / "two")
    other = Log()
    stillhouse.run(recipe(), out=tmp_path / "three", overrides=["train.teacher.epochs=1"], reporter=other)
    assert not any("taken from the store" in note for note in other.notes)


def test_a_run_stopped_after_any_stage_ends_with_the_same_numbers(tmp_path: Path) -> None:
    whole = stillhouse.run(recipe(), out=tmp_path / "whole")
    for stage in ("data", "teacher", "baseline", "student", "evaluate"):
        result = stillhouse.run(recipe(), out=tmp_path / "parts", stop_after=stage)
        assert result.report is None
    parts = stillhouse.run(recipe(), out=tmp_path / "parts")
    same(tmp_path / "whole", tmp_path / "parts")
    assert figures(parts.summary) == figures(whole.summary)
    with pytest.raises(StillhouseError, match="not a stage"):
        stillhouse.run(recipe(), out=tmp_path / "parts", stop_after="training")


@pytest.mark.parametrize("kind", [str(kind) for kind in OutputKind])
def test_every_output_kind_runs_end_to_end(kind: str, tmp_path: Path) -> None:
    models: dict[str, Any] = {}
    if kind in ("segmentation", "sequence"):
        models = {"dense": types.SimpleNamespace(stillhouse_students=hookimpl(dense_students))}
    values = recipe(kind, seeds=[0])
    if models:
        values |= {"teacher": {"use": "dense/net", "width": 8}, "student": {"use": "dense/net", "width": 2}}
        with using(models["dense"], name="dense") as manager:
            summary = stillhouse.run(values, out=tmp_path / "run", manager=manager).summary
    else:
        summary = stillhouse.run(values, out=tmp_path / "run").summary
    assert summary["verdict"]["helped"] is None
    assert math.isfinite(summary["student"]["mean"])


def dense_students() -> Any:
    return [StudentSpec(name="net", target=f"{__name__}:Dense", summary="A net for maps and sequences")]


class Dense(nn.Module):
    def __init__(self, task: Any, *, width: int = 4) -> None:
        super().__init__()
        (self.name, spec), *_ = task.inputs.items()
        self.maps = task.kind is OutputKind.SEGMENTATION
        if self.maps:
            self.net = nn.Sequential(
                nn.Conv2d(spec.shape[0], width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, task.outputs, 1)
            )
        else:
            self.net = nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, task.outputs))
            sample = torch.zeros(1, *spec.shape)
            self.net(self._rows(sample))

    def _rows(self, x: Tensor) -> Tensor:
        return x if x.dim() == 3 else x.float().unsqueeze(-1)

    def forward(self, **inputs: Tensor) -> Tensor:
        x = next(iter(inputs.values()))
        return self.net(x if self.maps else self._rows(x))


def test_estimators_teach_and_learn_and_folds_and_members_are_recorded(tmp_path: Path) -> None:
    values = recipe(
        teacher={
            "members": [
                {"use": "core/random-forest", "n_estimators": 10, "weight": 2},
                {"use": "core/mlp", "hidden": [8]},
            ],
            "out_of_fold": 2,
        },
        student={"use": "core/decision-tree", "max_depth": 3},
        controls=["core/linear"],
        metrics=["core/ece"],
        seeds=[0],
    )
    result = stillhouse.run(values, out=tmp_path / "run")
    teacher = result.folder / "teacher"
    assert (teacher / "member-0" / "estimator.skops").is_file()
    assert (teacher / "member-1-fold-1" / "model.safetensors").is_file()
    assert (result.folder / "student" / "seed-0" / "estimator.skops").is_file()
    assert result.summary["teacher"]["component"] == "core/random-forest + core/mlp"
    assert set(result.summary["controls"]) == {"core/linear"}
    assert "ece" in result.summary["student"]["metrics"]["test"]
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["components"]["teacher.1"]["id"] == "core/mlp"
    spent = result.summary["seconds"]
    assert spent.keys() == {"teacher", "baseline", "student", "control"}
    assert all(value > 0 for value in spent.values())
    record = json.loads((result.folder / "baseline" / "seed-0" / "fit.json").read_text())
    assert record["seconds"] == spent["baseline"]


@pytest.mark.parametrize("kind", ["classes", "yes or no", "values"])
def test_a_column_that_is_the_target_is_told(kind: str) -> None:
    """A run whose table has its target twice ended with 1.000 everywhere and the advice to try a better teacher."""
    generator = torch.Generator().manual_seed(0)
    x, values = torch.randn(300, 4, generator=generator), torch.randn(300, generator=generator)
    target = {"classes": torch.arange(300) % 3, "yes or no": (values > 0).float(), "values": values}[kind]
    given = {"no": x, "nearly": torch.cat([x, (target + 0.1 * torch.randn(300, generator=generator))[:, None]], dim=1)}
    given["yes"] = torch.cat([x, 3 - 2 * target[:, None].float()], dim=1)
    told = {}
    for name, inputs in given.items():
        split = TensorSplit({"x": inputs, "target": target})
        info = DataInfo(inputs={"x": TensorSpec((inputs.shape[1],))}, meta={"feature_names": ["a", "b", "c", "d", "e"]})
        told[name] = answers_among_inputs(Splits(info=info, train=split, val=split, test=split))
    assert told["no"] == told["nearly"] == []
    (found,) = told["yes"]
    assert found.startswith("column 'e' of input 'x' is the target of all training rows")


def test_a_baseline_that_is_a_tree_has_its_own_size(tmp_path: Path) -> None:
    """Parameters and latency of the baseline were those of the student, a tree several times larger."""
    tree = {"use": "core/decision-tree", "max_depth": 10, "min_samples_leaf": 1}
    values = recipe(student=tree, seeds=[0], objectives={"alpha": 0.0, "soft": ["soft"]})
    result = stillhouse.run(values, out=tmp_path / "run")
    registry = default_manager().registry
    info = DataInfo.from_json(json.loads((result.folder / "data/info.json").read_text()))
    for role in ("baseline", "student"):
        fitted = load(result.folder / role / "seed-0", registry, info).model
        assert result.summary[role]["parameters"] == parameters(fitted)
        assert result.summary[role]["latency_ms"]["p50"] > 0
    assert result.summary["baseline"]["parameters"] != result.summary["student"]["parameters"]
    assert result.summary["baseline"]["latency_ms"] != result.summary["student"]["latency_ms"]


def test_a_damaged_estimator_file_is_told_as_such(tmp_path: Path) -> None:
    """skops raised zipfile.BadZipFile, which was shown as a defect of ours."""
    tree = {"use": "core/decision-tree", "max_depth": 2}
    folder = stillhouse.run(recipe(student=tree, seeds=[0]), out=tmp_path).folder
    student = folder / "student" / "seed-0"
    whole = (student / "estimator.skops").read_bytes()
    registry, info = default_manager().registry, DataInfo.from_json(json.loads((folder / "data/info.json").read_text()))
    load(student, registry, info)
    for content in (b"no zip archive", b"", whole[: len(whole) // 2]):
        (student / "estimator.skops").write_bytes(content)
        with pytest.raises(RunFolderError, match="cannot read the estimator"):
            load(student, registry, info)


class TermWithMore(SoftTerm):
    added: str = "given"


def test_a_new_field_of_a_soft_term_reaches_the_saved_recipe_and_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were written field by field, so that a new field would have been dropped and an old student kept."""
    genuine = resolve

    def with_more(*args: Any, **options: Any) -> ResolvedRecipe:
        resolved = genuine(*args, **options)
        (term,) = resolved.terms
        bound = replace(term.bound, ref=TermWithMore.model_validate(term.bound.ref.model_dump()))
        return replace(resolved, terms=(replace(term, bound=bound),))

    monkeypatch.setattr("stillhouse.pipeline.runner.resolve", with_more)
    folder = stillhouse.run(recipe(seeds=[0]), out=tmp_path / "run", stop_after="student").folder
    (term,) = yaml.safe_load((folder / "recipe.yaml").read_text())["objectives"]["soft"]
    assert (term["use"], term["added"], term["weight"]) == ("core/soft-targets", "given", 1.0)
    record = json.loads((folder / "student" / "seed-0" / RECORD).read_text())
    assert '"added": "given"' in json.dumps(record["inputs"])


def test_every_field_of_every_part_reaches_the_saved_recipe() -> None:
    values = recipe(
        teacher={"members": [{"use": "core/mlp", "weight": 2, "seed": 3}], "cache": False, "seed": 5},
        objectives={"soft": [{"use": "core/hints", "student": "a", "teacher": "b", "weight": 0.5}]},
        controls=["core/linear"],
    )
    resolved = resolve(values, default_manager().registry)
    saved = resolved.to_recipe()
    assert saved["teacher"].keys() == TeacherConfig.model_fields.keys() - {"use", "checkpoint", "top_k"}  # none given
    assert saved["teacher"]["members"][0].keys() >= TeacherMember.model_fields.keys()
    assert saved["objectives"]["soft"][0].keys() >= SoftTerm.model_fields.keys() - {"gather"}
    assert saved.keys() == Recipe.model_fields.keys()
    assert resolve(saved, default_manager().registry).to_recipe() == saved


def test_out_of_fold_signals_come_from_teachers_that_never_saw_the_row(tmp_path: Path) -> None:
    """A teacher that memorises noise is certain of rows it has seen and unsure of rows it has not."""
    confidence = {}
    for folds in (0, 4):
        values = recipe(teacher={"use": "core/random-forest", "n_estimators": 30, "out_of_fold": folds}, seeds=[0])
        values["dataset"]["rows"] = 200
        folder = stillhouse.run(values, out=tmp_path / str(folds), stop_after="student").folder
        signal = torch.from_numpy(np.load(folder / "teacher" / "signal-train" / "shard-000000" / "0.npy"))
        confidence[folds] = float(signal.softmax(1).max(1).values.mean())
    assert confidence[0] > confidence[4] + 0.1


def test_a_teacher_from_a_checkpoint_is_used_as_it_is(tmp_path: Path) -> None:
    first = stillhouse.run(recipe(), out=tmp_path / "one")
    values = recipe(
        teacher={"use": "core/mlp", "hidden": [16], "checkpoint": str(tmp_path / "one" / "teacher" / "member-0")}
    )
    log = Log()
    second = stillhouse.run(values, out=tmp_path / "two", reporter=log)
    assert "teacher" not in log.models
    assert second.summary["teacher"]["metrics"] == first.summary["teacher"]["metrics"]
    values["head"], values["dataset"]["kind"] = "core/binary", "binary"
    with pytest.raises(IncompatibleError, match="needs 1 binary"):
        stillhouse.run(values, out=tmp_path / "three")


ASKED: list[bool] = []
"""Whether each `Starting` was told to fetch the weights it starts from."""


class Starting(nn.Module):
    def __init__(self, task: Any) -> None:
        super().__init__()
        ASKED.append(task.pretrained)
        self.net = nn.Linear(task.inputs["x"].shape[0], task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def starting_students() -> Any:
    return [StudentSpec(name="starting", target=f"{__name__}:Starting", summary="Tells whether it is pre-trained")]


def test_a_model_that_gets_saved_weights_need_not_fetch_those_it_starts_from(tmp_path: Path) -> None:
    ASKED.clear()
    module = types.SimpleNamespace(stillhouse_students=hookimpl(starting_students))
    with using(module, name="net") as manager:
        stillhouse.run(recipe(student="net/starting"), out=tmp_path / "run", manager=manager, stop_after="student")
        assert ASKED
        assert all(ASKED)
        ASKED.clear()
        _, data, _, registry = open_run(tmp_path / "run", manager)
        folder = tmp_path / "run" / "student" / "seed-0"
        load(folder, registry, data)
    assert ASKED == [False]


def test_features_are_distilled_through_adapters_that_stay_out_of_the_student(tmp_path: Path) -> None:
    shown = stillhouse.run(recipe(), out=tmp_path / "plain", stop_after="student").folder
    names = [name for name in load_file(shown / "student" / "seed-0" / "model.safetensors") if name.endswith("weight")]
    tap = names[0].removesuffix(".weight")
    hints = {
        "alpha": 0.5,
        "soft": [
            {"use": "core/hints", "student": tap, "teacher": tap},
            {"use": "core/similarity-preserving", "student": tap, "teacher": tap},
            "soft",
        ],
    }
    folder = stillhouse.run(recipe(objectives=hints), out=tmp_path / "hints", stop_after="student").folder
    kept = load_file(folder / "student" / "seed-0" / "model.safetensors")
    assert kept.keys() == load_file(shown / "student" / "seed-0" / "model.safetensors").keys()
    values = recipe(objectives={"soft": [{"use": "core/hints", "student": "absent", "teacher": tap}]})
    with pytest.raises(IncompatibleError, match="absent"):
        stillhouse.run(values, out=tmp_path / "wrong")
    values = recipe(
        objectives={"soft": [{"use": "core/hints", "student": tap, "teacher": tap}]},
        teacher={"use": "core/random-forest", "n_estimators": 3},
    )
    with pytest.raises(IncompatibleError, match="no modules to tap"):
        stillhouse.run(values, out=tmp_path / "forest")


def test_an_idle_term_is_told(tmp_path: Path) -> None:
    log = Log()
    values = recipe(objectives={"soft": ["soft", {"use": "core/dkd", "weight": 1e-7}]}, seeds=[0])
    summary = stillhouse.run(values, out=tmp_path / "run", reporter=log).summary
    assert any("under 1 %" in message and "core/dkd" in message for message in log.warnings)
    assert summary["warnings"] == log.warnings


def test_a_folder_that_is_not_this_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="is not a run"):
        stillhouse.run(recipe(), out=tmp_path / "home")
    stillhouse.run(recipe(), out=tmp_path / "run", stop_after="data")
    with pytest.raises(RunFolderError, match="'tiny'"):
        stillhouse.run(recipe(name="other"), out=tmp_path / "run")
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["name"] == "tiny"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    stillhouse.run(recipe(), out=tmp_path / "run", stop_after="data")
    (tmp_path / "run" / "teacher").mkdir()
    (tmp_path / "run" / "teacher" / ".partial-checkpoint.pt.x1").write_bytes(b"half")
    (tmp_path / "run" / ".partial-signal.x2").mkdir()
    stillhouse.run(recipe(), out=tmp_path / "run", stop_after="data")
    assert not list((tmp_path / "run").rglob(".partial-*"))


def info(**changes: Any) -> DataInfo:
    return DataInfo(**{"inputs": {"x": TensorSpec((2,))}, "classes": ("a", "b"), **changes})


def part(start: int, length: int = 4, **given: Any) -> TensorSplit:
    columns = {
        "x": torch.randn(length, 2),
        "target": torch.arange(length) % 2,
        "index": torch.arange(start, start + length),
    }
    return TensorSplit(columns, **given)


@pytest.mark.parametrize(
    ("parts", "kind", "what"),
    [
        ({"val": part(2)}, LeakageError, "row 2"),
        ({"train": part(0, groups=list("abcd")), "test": part(20, groups=list("wxya"))}, LeakageError, "group 'a'"),
        ({"train": part(0, times=[1, 2, 3, 9]), "test": part(20, times=[5, 6, 7, 8])}, LeakageError, "not before"),
        ({"unlabelled": part(20)}, LeakageError, "'unlabelled'"),
        ({"test": part(20, 0)}, DataError, "'test' of 'd' is empty"),
        ({"info": info(inputs={"y": TensorSpec((2,))})}, DataError, "no input 'y'"),
        ({"info": info(inputs={"x": TensorSpec((3,))})}, DataError, "declares float32 (3,)"),
        ({"info": info(inputs={"x": TensorSpec((2,), "int64")})}, DataError, "declares int64"),
        ({"train": TensorSplit({"x": torch.zeros(3, 2)})}, DataError, "no 'target'"),
    ],
)
def test_bad_splits_are_refused(parts: dict[str, Any], kind: type, what: str) -> None:
    given = {"info": info(), "train": part(0), "val": part(10), "test": part(20), **parts}
    with pytest.raises(kind) as caught:
        check_splits(Splits(**given), name="d")
    assert what in caught.value.what


def test_targets_outside_the_declared_set_are_refused_with_the_row() -> None:
    from stillhouse.heads import Multiclass

    bad = TensorSplit({"x": torch.randn(3, 2), "target": torch.tensor([0, 2, 1]), "index": torch.arange(30, 33)})
    splits = Splits(info=info(), train=part(0), val=part(10), test=bad)
    with pytest.raises(DataError, match="the target 2") as caught:
        check_targets(splits, Multiclass(info()), name="d")
    assert "row 31" in caught.value.where


@pytest.mark.parametrize("head", ["core/multiclass", "core/multilabel"])
def test_one_class_a_row_and_several_labels_a_row_are_not_confused(head: str, tmp_path: Path) -> None:
    """The one was broadcast into the other, and ended with an error of torch in the head."""
    other = "multilabel" if head == "core/multiclass" else "multiclass"
    with pytest.raises(IncompatibleError, match=r"the targets are .* a row") as caught:
        stillhouse.run(recipe(other, head=head), out=tmp_path / "run")
    assert "dataset 'core/synthetic', split" in caught.value.where
    assert "dataset.task" in caught.value.fix


def repeated(count: int, *, values: int = 0) -> Splits:
    """Twenty validation rows, ``count`` of them training rows under new ids; with ``values``, inputs take so many."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(120, 2, generator=random)
    if values:
        x = torch.randint(0, values, (120, 1), generator=random).float().expand(120, 2)
    x = x.clone()
    x[60 : 60 + count] = x[:count]
    parts = {"train": slice(0, 60), "val": slice(60, 80), "test": slice(80, 120)}
    rows = torch.arange(120)
    made = {
        name: TensorSplit({"x": x[at], "target": torch.arange(120)[at] % 2, "index": rows[at]})
        for name, at in parts.items()
    }
    return Splits(info=info(), **made)


def test_copies_are_found_by_content_between_any_two_splits() -> None:
    assert copied_rows(repeated(0)) == []
    (found,) = copied_rows(repeated(4))
    assert (found.split, found.among, found.count, found.rows) == ("val", "train", 4, 20)
    assert found.are_too_many
    assert not found.are_most
    assert str(found) == ("4 of 20 validation rows have inputs that are in the training rows to the last bit")
    refuse_copies([found], name="d")  # some are a warning


def test_split_that_is_mostly_a_copy_is_refused_unless_inputs_take_few_values() -> None:
    with pytest.raises(LeakageError, match="11 of 20 validation rows have inputs"):
        refuse_copies(copied_rows(repeated(11)), name="d")
    with_few_values = copied_rows(repeated(0, values=4))
    assert {(each.split, each.among) for each in with_few_values} == {
        ("test", "train"),
        ("val", "train"),
        ("test", "val"),
    }
    assert not any(each.are_too_many or each.are_most for each in with_few_values)
    refuse_copies(with_few_values, name="d")


def copying(context: Any, *, rows: int = 11) -> Splits:
    return repeated(rows)


def test_run_and_check_warn_of_some_copies_and_refuse_most(tmp_path: Path) -> None:
    spec = DatasetSpec(name="copies", target=f"{__name__}:copying", summary="Rows under two ids")
    module = types.SimpleNamespace(stillhouse_datasets=hookimpl(lambda: [spec]))
    module.stillhouse_datasets.__name__ = "stillhouse_datasets"
    log = Log()
    with using(module, name="bad") as manager:
        with pytest.raises(LeakageError, match="11 of 20 validation rows"):
            stillhouse.run(recipe(dataset="bad/copies"), out=tmp_path / "most", stop_after="data", manager=manager)
        some = recipe(dataset={"use": "bad/copies", "rows": 3})
        stillhouse.run(some, out=tmp_path / "some", stop_after="data", manager=manager, reporter=log)
        # A run that goes on says it again, since only what is said before the report stands in it.
        continued = Log()
        stillhouse.run(some, out=tmp_path / "some", stop_after="data", manager=manager, reporter=continued)
        most = check(recipe(dataset="bad/copies"), manager=manager)
        few = check(some, manager=manager)
    expected = "3 of 20 validation rows have inputs that are in the training rows to the last bit"
    assert [log.warnings, continued.warnings, few.warnings] == [[expected]] * 3
    assert [str(each.what)[:24] for each in most.problems] == ["11 of 20 validation rows"]


ROWS = {"shift": 0.0}


def shifting(context: Any) -> Splits:
    """Rows of a file that somebody changes between two runs."""
    made = repeated(0)
    made.train.columns()["x"].add_(ROWS["shift"])
    return made


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_finished_run_whose_rows_have_changed_is_refused_and_made_again_only_when_asked(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DatasetSpec(name="shifting", target=f"{__name__}:shifting", summary="Rows that change")
    module = types.SimpleNamespace(stillhouse_datasets=hookimpl(lambda: [spec]))
    module.stillhouse_datasets.__name__ = "stillhouse_datasets"
    values, out = recipe(dataset="bad/shifting", seeds=[0]), tmp_path / "run"
    with using(module, name="bad") as manager:
        first = stillhouse.run(values, out=out, manager=manager)
        stillhouse.export(out, format="torch", manager=manager)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"}
        monkeypatch.setitem(ROWS, "shift", 1.0)
        for more in ({}, {"seeds": [0, 1]}):
            with pytest.raises(RunFolderError, match=r"what it was made from has changed \(data\)") as caught:
                stillhouse.run(values, out=out, manager=manager, jobs=jobs, **more)
            assert "--overwrite" in caught.value.fix
        kept = {
            path for path, content in before.items() if path.name != "manifest.json" and path.read_bytes() == content
        }
        assert kept == {path for path in before if path.name != "manifest.json"}
        # What is stopped while it is made again is no finished run any more, and goes on unasked.
        stillhouse.run(values, out=out, manager=manager, overwrite=True, stop_after="teacher")
        assert not (out / "summary.json").exists()
        assert not (out / "export").exists()
        again = stillhouse.run(values, out=out, manager=manager)
    assert again.summary["dataset"]["fingerprint"] != first.summary["dataset"]["fingerprint"]


def test_rows_that_reach_into_a_later_split_are_refused() -> None:
    def timed(first: int, reach: int) -> TensorSplit:
        at = list(map(float, range(first, first + 4)))
        return TensorSplit(part(first, 4).columns(), times=at, until=[each + reach for each in at])

    def splits(reach: int) -> Splits:
        return Splits(info=info(), train=timed(0, reach), val=timed(10, reach), test=timed(20, reach))

    check_splits(splits(7), name="d")
    with pytest.raises(LeakageError, match="a row of split 'train' of 'd' takes in values until 11, and split 'val'"):
        check_splits(splits(8), name="d")
    kept = SubsetSplit(timed(0, 2), [3, 1])
    assert kept.until == [5.0, 3.0]
    assert ConcatSplit([kept, kept]).until == [5.0, 3.0, 5.0, 3.0]
    assert ConcatSplit([kept, part(0)]).until is None


def leaky(context: Any) -> Splits:
    return Splits(info=info(), train=part(0), val=part(0), test=part(20))


def test_a_leaking_dataset_stops_the_run_before_training(tmp_path: Path) -> None:
    spec = DatasetSpec(name="leaky", target=f"{__name__}:leaky", summary="Rows in two splits")
    module = types.SimpleNamespace(stillhouse_datasets=hookimpl(lambda: [spec]))
    module.stillhouse_datasets.__name__ = "stillhouse_datasets"
    with using(module, name="bad") as manager, pytest.raises(LeakageError, match="row 0"):
        stillhouse.run(recipe(dataset="bad/leaky"), out=tmp_path / "run", manager=manager)
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_teacher_that_knows_its_rows_by_heart_is_told(tmp_path: Path) -> None:
    said = {}
    for folds in (0, 3):
        log = Log()
        values = recipe(teacher={"use": "core/random-forest", "n_estimators": 20, "out_of_fold": folds}, seeds=[0])
        values["dataset"]["noise"] = 0.3
        stillhouse.run(values, out=tmp_path / str(folds), stop_after="student", reporter=log)
        said[folds] = any("out_of_fold" in message for message in log.warnings)
    assert said == {0: True, 3: False}


def readable_tree(task: Any, *, depth: int = 2) -> Any:
    return DecisionTreeClassifier(max_depth=depth, random_state=task.seed)


def tree_rules(model: Any, task: Any) -> str:
    return f"{task.info.description}\n{export_text(model)}"


def readable() -> Any:
    target, rules = f"{__name__}:readable_tree", f"{__name__}:tree_rules"
    return [StudentSpec(name="tree", target=target, rules=rules, summary="A tree that can be read")]


def test_rules_of_a_readable_model_are_kept_beside_it_and_printed_in_the_report(tmp_path: Path) -> None:
    module = types.SimpleNamespace(stillhouse_students=hookimpl(readable))
    module.stillhouse_students.__name__ = "stillhouse_students"
    values = recipe("binary", student="read/tree", teacher="read/tree")
    with using(module, name="read") as manager:
        folder = stillhouse.run(values, out=tmp_path / "run", manager=manager).folder
        again = stillhouse.run(values, out=tmp_path / "again", manager=manager).folder
    rules = (folder / "student" / "seed-0" / "rules.txt").read_text(encoding="utf-8")
    description = json.loads((folder / "data" / "info.json").read_text())["description"]
    assert rules.startswith(f"{description}\n|---")
    assert rules.count("class:") == 4
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert html.escape(rules.splitlines()[1]) in report
    for each in (folder / "baseline" / "seed-1", folder / "teacher" / "member-0", again / "teacher" / "member-0"):
        assert "|---" in (each / "rules.txt").read_text(encoding="utf-8"), each


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 2]}}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 -> 2"]),
        ({"b": {"c": [256, 8]}}, {"b": {"c": [8]}}, ["b.c.0: 256 -> 8", "b.c.1: 8 -> absent"]),
        ({}, {"b": {"c": 1}}, ["b.c: absent -> 1"]),
        ({"b": {"c": 1}}, {"b": None}, ["b: {'c': 1} -> None"]),
        ({"m": [{"id": 1}]}, {"m": [{"id": 2}, {"id": 1}, {"id": 3}]}, ["m: 1 -> 3 entries"]),
        ({"m": [{"id": 1}]}, {"m": [{"id": 2}]}, ["m.0.id: 1 -> 2"]),
    ],
)
def test_what_changed_is_named_leaf_by_leaf(before: Any, now: Any, expected: list[str]) -> None:
    assert differences(before, now) == expected
