"""The plugin as a whole: its components, its recipes, and a run from sound to an exported model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import stillhouse
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.options import describe_options
from stillhouse.plugins.registry import Registry
from stillhouse.recipe import resolve
from stillhouse_audio_vision.datasets.sounds import fixed, read_sound

RECIPES = (
    "tagging-demo",
    "fsdd-speakers",
    "fsdd-representations",
    "fsdd-mixtures",
    "esc10",
    "esc50",
    "digits",
    "digits-few-labels",
    "digits-mutual",
    "cifar100",
    "digits-crossmodal",
    "digits-robust",
)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Manager.from_environment().registry


def test_every_component_loads_and_explains_its_options(registry):
    mine = [each for each in registry.components() if each.id.startswith("audio_vision/") and each.kind != "recipe"]
    assert {each.kind for each in mine} == {"dataset", "teacher", "student", "head"}
    for component in mine:
        component.load()
        for option in describe_options(component):
            assert option["help"] or component.kind == "head", (component.id, option["name"])


def test_every_recipe_resolves(registry):
    found = {each.id for each in registry.components() if each.kind == "recipe"}
    assert {f"audio_vision/{name}" for name in RECIPES} <= found
    for name in RECIPES:
        resolved = resolve(f"audio_vision/{name}", registry)
        assert resolved.recipe.summary
        assert len(resolved.recipe.seeds) >= 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A short run of the demo."""
    out = tmp_path_factory.mktemp("run") / "demo"
    short = ["dataset.rows=120", "train.teacher.epochs=2", "train.student.epochs=2", "teacher.width=4"]
    augment = "dataset.augment={mixup: 0.3, time_mask: 0.2, freq_mask: 0.2}"
    quick = ["evaluate.latency_samples=5", "evaluate.throughput_batch=8"]
    stillhouse.run("audio_vision/tagging-demo", out=out, overrides=[*short, augment, *quick], seeds=[0, 1])
    return out


def test_a_run_ends_with_a_summary_that_says_simulated(finished):
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["primary_metric"] == {"name": "map", "higher_is_better": True}
    assert summary["dataset"]["rows"] == {"train": 120, "val": 60, "test": 60}
    for model in ("teacher", "baseline", "student"):
        metrics = summary[model]["metrics"]["test"]
        assert 0 < metrics["map"] <= 1
        assert {"macro_auc", "d_prime"} <= set(metrics)
    assert "simulated" in (finished / "report.html").read_text(encoding="utf-8").lower()


def test_the_student_of_a_run_tags_new_files_and_is_exported(finished, files, tmp_path):
    soundfile.write(tmp_path / "new.wav", files.tone(150, 1.5, 16000), 16000)
    told = stillhouse.predict(finished, tmp_path / "new.wav")
    assert told["file"] == ["new.wav"]
    assert told["seconds"] == [1.5]
    assert 0 <= told["p_hum"][0] <= 1
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = stillhouse.export(finished, out=tmp_path / "student.onnx")
    described = json.loads((tmp_path / "student.onnx.json").read_text(encoding="utf-8"))
    assert path.stat().st_size > 1000
    assert described["inputs"] == {"waveform": {"shape": ["batch", 8000], "dtype": "float32"}}
    assert described["output"]["classes"][0] == "bell"
    assert "resampled to ``rate``" in described["preparation"]
    assert "Args:" not in described["preparation"]
    waveform = fixed(read_sound(tmp_path / "new.wav", 8000), 8000)
    logits = onnxruntime.InferenceSession(str(path)).run(None, {"waveform": waveform[None]})[0][0]
    hum = described["output"]["classes"].index("hum")
    assert 1 / (1 + np.exp(-logits[hum])) == pytest.approx(told["p_hum"][0], abs=1e-3)


def test_the_demo_learns_from_rows_without_a_label(tmp_path):
    short = ["train.teacher.epochs=10", "train.student.epochs=15", "evaluate.latency_samples=5"]
    found = stillhouse.run("audio_vision/digits-few-labels", out=tmp_path / "run", overrides=short, seeds=[0, 1])
    assert found.summary["dataset"]["rows"] == {"train": 40, "val": 359, "test": 719, "unlabelled": 679}
    assert found.summary["student"]["mean"] > found.summary["baseline"]["mean"]
    # An ensemble that repeats the 40 labels is no fault where the lesson is what it says of other rows.
    assert found.summary["warnings"] == []


def test_a_cross_modal_run_lets_the_student_hear_what_the_teacher_sees(tmp_path):
    short = ["dataset.audio=synthetic", "dataset.labelled=0.05", "train.teacher.epochs=25", "train.student.epochs=1"]
    quick = ["evaluate.latency_samples=5", "evaluate.throughput_batch=8", "train.student.batch_size=64"]
    found = stillhouse.run(
        "audio_vision/digits-crossmodal", out=tmp_path / "run", overrides=[*short, *quick], seeds=[0]
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert found.report.is_file()
    rows = summary["dataset"]["rows"]
    assert rows["train"] + rows["unlabelled"] == 1500
    assert rows["train"] == 80  # one in twenty, the same number of each digit
    assert summary["teacher"]["metrics"]["test"]["accuracy"] > 0.5
