"""The plugin as a whole: components, recipes, demonstrations run to an exported model, and the official files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import stillhouse
from stillhouse.pipeline.data import check_splits
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.options import describe_options
from stillhouse.plugins.registry import Registry
from stillhouse.recipe import resolve
from stillhouse.testing.tiny import run_tiny
from stillhouse_medicine.datasets.medmnist import medmnist
from stillhouse_medicine.datasets.vqa_rad import vqa_rad

RECIPES = (
    "vqa-demo",
    "vqa-no-image-demo",
    "vqa-no-question-demo",
    "vqa-rad",
    "vqa-rad-no-image",
    "vqa-rad-no-question",
    "pneumonia",
    "pneumonia-federated",
    "pneumonia-noisy",
    "pneumonia-robust",
    "segmentation-demo",
    "diagnosis-demo",
)
QUICK = ["evaluate.latency_samples=5", "evaluate.throughput_batch=8"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Manager.from_environment().registry


def test_every_component_loads_and_explains_its_options(registry):
    mine = [each for each in registry.components() if each.id.startswith("medicine/") and each.kind != "recipe"]
    assert {each.kind for each in mine} == {"augmenter", "dataset", "teacher", "student", "head"}
    for component in mine:
        component.load()
        for option in describe_options(component):
            assert option["help"] or component.kind == "head", (component.id, option["name"])


def test_every_recipe_resolves(registry):
    found = {each.id for each in registry.components() if each.kind == "recipe" and each.id.startswith("medicine/")}
    assert {f"medicine/{name}" for name in RECIPES} <= found
    for name in found:
        resolved = resolve(name, registry)
        assert resolved.recipe.summary
        assert len(resolved.recipe.seeds) >= 3


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("-demo")])
def test_demonstrations_run_offline(name):
    summary = run_tiny(f"medicine/{name}")
    primary = summary["primary_metric"]["name"]
    for model in ("teacher", "baseline", "student"):
        assert 0 <= summary[model]["metrics"]["test"][primary] <= 1
    assert bool(summary["dataset"].get("simulated")) is (name != "diagnosis-demo")


@pytest.mark.parametrize(("name", "missing"), [("vqa-no-image-demo", "image"), ("vqa-no-question-demo", "question")])
def test_a_student_without_an_input_is_told_of_as_such(name, missing):
    summary = run_tiny(f"medicine/{name}")
    assert all(facts["missing_inputs"] == missing for facts in summary["method_facts"]["per_seed"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A short run of questions about drawn scans."""
    out = tmp_path_factory.mktemp("run") / "vqa"
    short = ["dataset.images=40", "train.teacher.epochs=1", "train.student.epochs=1", "teacher.image_width=4"]
    stillhouse.run("medicine/vqa-demo", out=out, overrides=[*short, *QUICK], seeds=[0, 1])
    return out


def test_a_run_reports_the_control_and_every_level_of_distillation(finished):
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["primary_metric"] == {"name": "accuracy", "higher_is_better": True}
    control = summary["controls"]["medicine/question-only"]
    assert {"accuracy", "closed_accuracy", "open_accuracy", "answerable"} == set(control["metrics"]["test"])
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    terms = next(record["train"]["terms"] for record in records if record["stage"] == "student")
    assert set(terms) == {"hard", "core/soft-targets", "core/hints", "core/hints (2)", "core/hints (3)"}
    assert all(term["weighted"] > 0 for term in terms.values())
    report = (finished / "report.html").read_text(encoding="utf-8")
    assert "question-only" in report
    assert "simulated" in report.lower()


def test_the_student_of_a_run_answers_new_questions_and_is_exported(finished, files, tmp_path):
    files.save(tmp_path / "images" / "new.png", files.picture(5, 50, 60))
    rows = [{"image": "new.png", "question": "Where is the lesion?"}, {"image": "new.png", "question": "Qu'est-ce?"}]
    (tmp_path / "new.json").write_text(json.dumps(rows), encoding="utf-8")
    told = stillhouse.predict(finished, tmp_path / "new.json")
    assert told["image"] == ["new.png"] * 2
    assert all(answer and "vocabulary" not in answer for answer in told["answer"])
    assert all(0 < share <= 1 for share in told["probability"])
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = stillhouse.export(finished, out=tmp_path / "student.onnx")
    assert path.stat().st_size > 1000
    described = json.loads((tmp_path / "student.onnx.json").read_text(encoding="utf-8"))
    assert set(described["inputs"]) == {"image", "question"}


def test_own_images_run_with_augmentation_and_predict(files, tmp_path):
    for at, name in enumerate(("benign", "malignant")):
        for number in range(16):
            files.save(tmp_path / "own" / name / f"{number}.png", files.picture(40 * at + number) // (1 + 2 * at))
    recipe = {
        "head": "medicine/binary",
        "dataset": {
            "use": "medicine/image-folder",
            "path": str(tmp_path / "own"),
            "size": 16,
            "augment": {"shift": 0.1},
        },
        "teacher": {"use": "medicine/resnet", "width": 4, "blocks": 1},
        "student": {"use": "medicine/cnn", "width": 4},
    }
    summary = run_tiny(recipe, out=tmp_path / "run")
    assert summary["dataset"]["rows"]["train"] == 22
    told = stillhouse.predict(tmp_path / "run", tmp_path / "own")
    assert len(told["file"]) == 32


def test_a_recipe_on_official_files_runs_tiny(files, tmp_path, monkeypatch):
    import numpy as np

    for name in ("vqa-rad", "medmnist"):
        (tmp_path / "data" / "medicine" / name).mkdir(parents=True)
    files.rad_research(tmp_path / "data" / "medicine" / "vqa-rad")
    arrays = files.medmnist(rows=(64, 32, 32))
    np.savez(tmp_path / "data" / "medicine" / "medmnist" / "pneumoniamnist.npz", **arrays)
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path / "data"))
    asked = run_tiny("medicine/vqa-rad", teacher__image_width=4, dataset__size=32)
    assert asked["dataset"]["rows"]["test"] == 8
    seen = run_tiny("medicine/pneumonia", teacher__width=4)
    assert any("not the official file" in warning for warning in seen["warnings"])
    assert 0 <= seen["student"]["metrics"]["test"]["auc"] <= 1
    noisy = run_tiny("medicine/pneumonia-noisy", teacher__width=4)
    assert "30% of the training labels made wrong" in noisy["dataset"]["description"]


real = pytest.mark.skipif("STILLHOUSE_DATA" not in os.environ, reason="STILLHOUSE_DATA is not set")


@pytest.mark.data
@real
def test_the_real_vqa_rad_is_split_by_image(context):
    root = Path(os.environ["STILLHOUSE_DATA"]) / "medicine" / "vqa-rad"
    splits = vqa_rad(replace(context(), root=root), split="by-image", size=16)
    check_splits(splits, name="vqa-rad")
    named = splits.named()
    if not (root / "testset.json").is_file():
        assert sum(len(split) for split in named.values()) == 3064
    images = [set(split.groups) for split in named.values()]
    assert sum(map(len, images)) == len(set.union(*images))
    assert len(images[2]) == pytest.approx(0.2 * sum(map(len, images)), abs=1)
    closed = [float(split.columns(["closed"])["closed"].float().mean()) for split in named.values()]
    assert all(0.5 < share < 0.7 for share in closed)


@pytest.mark.data
@real
@pytest.mark.filterwarnings("ignore:pneumoniamnist:UserWarning")
def test_the_real_pneumoniamnist_has_the_published_sizes(context):
    root = Path(os.environ["STILLHOUSE_DATA"]) / "medicine" / "medmnist"
    splits = medmnist(replace(context(), root=root))
    check_splits(splits, name="medmnist")
    assert [len(split) for split in splits.named().values()] == [4708, 524, 624]
    assert splits.info.class_counts == (1214, 3494)
    assert splits.info.inputs["image"].shape == (1, 28, 28)
