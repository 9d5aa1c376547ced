"""Models that are no better than an answer that is always the same are named."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor

import stillhouse
from stillhouse.heads import Multiclass, Regression
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.chance import constant_answer, is_at_chance, warn_of_chance
from stillhouse.recipe import Recipe
from stillhouse.storage import write_tensors
from stillhouse.types import DataInfo, TensorSpec, TensorSplit


def recipe(kind: str, **changes) -> dict:
    training = {"epochs": 6, "batch_size": 16, "lr": 0.01}
    return {
        "name": "tiny",
        "head": f"core/{kind}",
        "dataset": {"use": "core/synthetic", "kind": kind, "rows": 400, "noise": 0.0},
        "teacher": {"use": "core/mlp", "hidden": [32]},
        "student": {"use": "core/mlp", "hidden": [16]},
        "train": {"teacher": training, "student": training},
        "evaluate": {"latency_samples": 20, "throughput_batch": 32},
        "seeds": [0],
        **changes,
    }


def test_the_constant_answer_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    target = random.integers(0, 3, 50)
    prior = DummyClassifier(strategy="prior").fit(np.zeros((50, 1)), target).predict_proba(np.zeros((4, 1)))
    found = constant_answer(OutputKind.MULTICLASS, 3, torch.from_numpy(target), 4)
    np.testing.assert_allclose(found.softmax(dim=1), prior, atol=1e-6)
    found = constant_answer(OutputKind.BINARY, 1, torch.from_numpy((target == 0).astype(np.float32)), 4)
    np.testing.assert_allclose(found.sigmoid()[:, 0], prior[:, 0], atol=1e-6)
    values = random.normal(3, 2, 50).astype(np.float32)
    mean = DummyRegressor().fit(np.zeros((50, 1)), values).predict(np.zeros((4, 1)))
    found = constant_answer(OutputKind.REGRESSION, 1, torch.from_numpy(values), 4)
    np.testing.assert_allclose(found[:, 0], mean, rtol=1e-5)


def test_outputs_that_are_no_values_of_the_target_have_no_constant_answer():
    assert constant_answer(OutputKind.REGRESSION, 5, torch.zeros(9), 4) is None
    assert constant_answer(OutputKind.SEGMENTATION, 2, torch.zeros(9, 4, 4), 4) is None


@pytest.mark.parametrize(
    ("value", "constant", "higher", "at_chance"),
    [
        (0.33, 1 / 3, True, True),
        (0.36, 1 / 3, True, True),
        (0.45, 1 / 3, True, False),
        (0.51, 0.5, True, True),
        (0.03, 0.005, True, False),  # precision on rare events, six times that of chance
        (0.0, 0.0, True, True),
        (0.1, 0.0, True, False),
        (41.0, 40.0, False, True),
        (39.0, 40.0, False, True),
        (30.0, 40.0, False, False),
        (float("nan"), 0.5, True, False),
    ],
)
def test_what_counts_as_chance(value, constant, higher, at_chance):
    assert is_at_chance(value, constant, higher_is_better=higher) is at_chance


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_models_that_learn_are_not_named_and_those_that_do_not_are(tmp_path, kind):
    learnt = stillhouse.run(recipe(kind), out=tmp_path / "learnt").summary
    assert not [each for each in learnt["warnings"] if "at chance" in each]
    values = recipe(kind)
    values["train"] = {**values["train"], "teacher": {"epochs": 1, "batch_size": 400, "lr": 1e-9}}
    stuck = stillhouse.run(values, out=tmp_path / "stuck").summary
    named = [each for each in stuck["warnings"] if each.startswith("the teacher is at chance")]
    assert len(named) == 1
    assert "learning rate" in named[0]
    assert "spectrum" not in named[0]


def a_run(tmp_path, head, targets, *, ema=None, options=None):
    split = TensorSplit({"target": targets})
    said: list[str] = []
    context = SimpleNamespace(
        folder=tmp_path,
        head=head,
        splits=SimpleNamespace(train=split, val=split),
        judged_rows=lambda rows: rows.columns(["target", "index"]),
        resolved=SimpleNamespace(
            dataset=SimpleNamespace(options=options or {}),
            recipe=Recipe.model_validate(recipe("multiclass", train={"student": {"ema": ema}})),
        ),
        warn=said.append,
    )
    return context, said


def test_averaged_weights_at_chance_after_an_epoch_that_learned_are_named(tmp_path):
    head = Multiclass(DataInfo(inputs={"x": TensorSpec((1,))}, classes=("a", "b")))
    targets = torch.tensor([0, 1] * 20)
    context, said = a_run(tmp_path, head, targets, ema=0.999)
    folder = tmp_path / "student" / "seed-0"
    right = torch.nn.functional.one_hot(targets, 2).float()
    write_tensors(folder / "predictions" / "val.safetensors", {"prediction": right, "target": targets})
    epochs = [(2.7, 0.5), (1.4, 0.5), (0.8, 0.52), (0.7, 0.9)]
    lines = [json.dumps({"train": {"loss": loss}, "val": {"accuracy": value}}) for loss, value in epochs]
    (folder / "history.jsonl").write_text("\n".join(lines))
    warn_of_chance(context, "student", [folder])
    assert len(said) == 1
    assert "averaged weights of the student" in said[0]
    assert "in 2 of 4 epochs" in said[0]
    without, silent = a_run(tmp_path, head, targets)
    warn_of_chance(without, "student", [folder])
    assert silent == []


def test_raw_signals_are_named_only_where_the_dataset_could_show_their_spectrum(tmp_path):
    head = Regression(DataInfo(inputs={"x": TensorSpec((1,))}))
    targets = torch.arange(20.0)
    folder = tmp_path / "baseline" / "seed-0"
    write_tensors(
        folder / "predictions" / "val.safetensors", {"prediction": torch.full((20, 1), 9.5), "target": targets}
    )
    for shown, named in (("raw", True), ("spectrum", False)):
        context, said = a_run(tmp_path, head, targets, options={"features": shown})
        warn_of_chance(context, "baseline", [folder])
        assert len(said) == 1
        assert ("dataset.features: spectrum" in said[0]) is named
