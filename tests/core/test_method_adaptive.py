"""``core/adaptive``: shares by row against a loop over rows, annealing against its formula, runs, resuming."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import stillhouse
from stillhouse import heads
from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.methods.adaptive import Annealing, ByDifficulty, row_losses
from stillhouse.objectives import BernoulliKL, GaussianKL, PixelKL, SoftTargets, TeacherMSE, TokenKL
from stillhouse.progress import Silent
from stillhouse.trained import Trained
from stillhouse.training import loop
from stillhouse.training.learner import Distillation
from stillhouse.training.loss import DistillationLoss, Term
from stillhouse.types import Batch, DataInfo, Head, Outputs, TensorSpec

INFO = DataInfo(inputs={"x": TensorSpec((3,))}, classes=("a", "b", "c"), class_counts=(5, 10, 20))
YES = DataInfo(inputs={"x": TensorSpec((3,))})
B = 6


def case(kind: str) -> tuple[Head, nn.Module, Tensor, Tensor]:
    """Head, objective, teacher's prediction and target of a batch of six."""
    torch.manual_seed(1)
    classes = torch.randint(0, 3, (B,))
    return {
        "multiclass": (heads.Multiclass(INFO), SoftTargets(temperature=2.0), torch.randn(B, 3), classes),
        "balanced": (heads.Multiclass(INFO, class_weights="balanced"), SoftTargets(), torch.randn(B, 3), classes),
        "binary": (heads.Binary(YES, pos_weight=3.0), BernoulliKL(), torch.randn(B, 1), (classes > 0).float()),
        "multilabel": (heads.Multilabel(INFO), BernoulliKL(), torch.randn(B, 3), torch.randint(0, 2, (B, 3)).float()),
        "regression": (heads.Regression(YES), TeacherMSE(), torch.randn(B, 1), torch.randn(B)),
        "gaussian": (heads.Gaussian(YES), GaussianKL(), torch.randn(B, 2), torch.randn(B)),
        "segmentation": (
            heads.Segmentation(INFO, dice_weight=0.0),
            PixelKL(),
            torch.randn(B, 3, 4, 4),
            torch.randint(0, 3, (B, 4, 4)),
        ),
        "sequence": (heads.Sequence(INFO), TokenKL(), torch.randn(B, 5, 3), torch.randint(0, 3, (B, 5))),
    }[kind]


KINDS = ["multiclass", "binary", "multilabel", "regression", "gaussian", "segmentation", "sequence"]


class Table(nn.Module):
    """A student that is a table of predictions by row."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.values = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.values[: len(x)]


@pytest.mark.parametrize("kind", [*KINDS, "balanced"])
def test_the_loss_of_a_row_is_that_of_a_batch_of_this_row_alone(kind: str) -> None:
    head, _, prediction, target = case(kind)
    wanted = [head.hard_loss(prediction[[row]], {"target": target[[row]]}) for row in range(B)]
    torch.testing.assert_close(row_losses(head.hard_loss, prediction, {"target": target}), torch.stack(wanted))


@pytest.mark.parametrize("labelled", [B, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_by_difficulty_is_a_loop_over_rows(kind: str, labelled: int) -> None:
    head, objective, teacher, target = case(kind)
    extras = ("target",) if kind == "sequence" else ()
    student = Table(teacher.shape)
    term = Term(name="soft", objective=objective, weight=0.5, extras=extras)
    loss = DistillationLoss(head.hard_loss, [term], 0.2)
    base = Distillation(student, ["x"], loss, lambda batch: Outputs(teacher))
    scale = 0.8

    def ease(prediction: Tensor, rows: Batch) -> Tensor:
        return torch.exp(-row_losses(head.hard_loss, prediction, rows) / scale)

    batch = {"x": torch.zeros(B, 3), "target": target[:labelled]}
    total, values = ByDifficulty(base, ease)(batch, labelled)
    (gradient,) = torch.autograd.grad(total, student.values)

    hard, soft = torch.zeros(()), []
    for row in range(B):
        student_row, teacher_row = student.values[[row]], teacher[[row]]
        share = torch.tensor(1.0)
        if row < labelled:
            one = {"target": target[[row]]}
            share = 0.8 * torch.exp(-head.hard_loss(teacher_row, one) / scale)
            hard = hard + (1 - share) * head.hard_loss(student_row, one) / labelled
        elif extras:
            continue  # an objective that takes the target sees labelled rows only
        soft.append(share * objective(student_row, teacher_row, **({"target": target[[row]]} if extras else {})))
    wanted = hard + 0.5 * torch.stack(soft).mean()
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, student.values)[0])
    assert math.isclose(float(values["hard"]["weighted"]), float(hard.detach()), rel_tol=1e-4)


def test_class_weights_hold_in_the_hard_loss_and_easy_rows_have_the_alpha_of_the_recipe() -> None:
    head, objective, teacher, target = case("balanced")
    student = Table(teacher.shape)
    loss = DistillationLoss(head.hard_loss, [Term(name="soft", objective=objective)], 0.2)
    base = Distillation(student, ["x"], loss, lambda batch: Outputs(teacher))
    batch = {"x": torch.zeros(B, 3), "target": target}
    easy, _ = ByDifficulty(base, lambda prediction, rows: torch.ones(len(prediction)))(batch, B)
    torch.testing.assert_close(easy, base(batch, B)[0])
    hard, _ = ByDifficulty(base, lambda prediction, rows: torch.zeros(len(prediction)))(batch, B)
    torch.testing.assert_close(hard, F.cross_entropy(student.values, target, weight=head.weights))  # type: ignore[attr-defined]


def test_annealing_fits_the_teacher_times_phi_and_phi_rises_to_one() -> None:
    teacher = torch.randn(B, 2)
    student = Table(teacher.shape)
    trained = Trained(
        component=None,  # type: ignore[arg-type]
        options={},
        task=None,  # type: ignore[arg-type]
        model=student,
        inputs=("x",),
        features=None,  # type: ignore[arg-type]
    )
    learner = Annealing(trained, lambda batch: Outputs(teacher), 5, 3.0)
    seen = []
    for epoch in range(11):
        learner.set_progress(epoch / 10)
        seen.append(learner.factor)
        loss, _ = learner({"x": torch.zeros(B, 3)}, B)
        torch.testing.assert_close(loss, F.mse_loss(student.values, 3.0 + learner.factor * (teacher - 3.0)))
    wanted = [1 - (temperature - 1) / 5 for temperature in (5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 1)]
    assert seen == pytest.approx(wanted)


def recipe(kind: str = "multiclass", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "adaptive",
        "head": f"core/{kind}",
        "dataset": {"use": "core/synthetic", "kind": kind, "rows": 200, "unlabelled": 64},
        "teacher": {"use": "core/mlp", "hidden": [24]},
        "student": {"use": "core/mlp", "hidden": [6]},
        "method": {"use": "core/adaptive"},
        "train": {"teacher": {"epochs": 4, "batch_size": 32}, "student": {"epochs": 4, "batch_size": 32}},
        "evaluate": {"latency_samples": 20, "throughput_batch": 32},
        "seeds": [0],
    }
    return {**values, **changes}


class Killed(Exception):
    pass


class Stop(Silent):
    """Stops in the second epoch of a phase of the student."""

    def __init__(self, phase: str | None) -> None:
        self.phase = phase

    def epoch(self, record: dict[str, Any]) -> None:
        if record.get("stage") == "student" and record.get("phase") == self.phase and record["epoch"] == 1:
            raise Killed


@pytest.mark.parametrize(
    ("kind", "options", "phases"),
    [
        ("multiclass", {}, [None]),
        ("regression", {"mode": "annealing", "max_temperature": 3}, ["annealing", "labels"]),
    ],
)
def test_runs_resume_to_the_bit_in_every_phase(
    kind: str, options: dict[str, Any], phases: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recipe(kind, method={"use": "core/adaptive", **options})
    whole = stillhouse.run(given, out=tmp_path / "whole", stop_after="evaluate")
    first = load_file(whole.folder / "student" / "seed-0" / "model.safetensors")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    killed = tmp_path / "killed"
    for phase in phases:
        with pytest.raises(Killed):
            stillhouse.run(given, out=killed, reporter=Stop(phase), stop_after="evaluate")
        assert list((killed / "student" / "seed-0").rglob("checkpoint.pt"))
    again = stillhouse.run(given, out=killed, stop_after="evaluate")
    second = load_file(killed / "student" / "seed-0" / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    summary = whole.summary
    assert summary["method"]["id"] == "core/adaptive"
    assert summary["verdict"]["sentence"]
    assert summary["baseline"]["metrics"] == again.summary["baseline"]["metrics"]
    assert summary["method_facts"] == again.summary["method_facts"]
    lines = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["stage"] == "student"]
    assert len(lines) == 4
    if phases == [None]:
        facts = summary["method_facts"]["per_seed"][0]
        assert 0 < facts["mean_soft_share"] < 0.5
        assert facts["mean_teacher_loss"] > 0
    else:
        assert [(line["phase"], set(line["train"]["terms"])) for line in lines] == [
            ("annealing", {"annealed"}),
            ("annealing", {"annealed"}),
            ("labels", {"hard"}),
            ("labels", {"hard"}),
        ]


def test_estimators_and_ensembles_teach_by_difficulty(tmp_path: Path) -> None:
    teacher = {"members": [{"use": "core/random-forest", "n_estimators": 5}, {"use": "core/mlp", "hidden": [8]}]}
    summary = stillhouse.run(recipe(teacher=teacher), out=tmp_path / "run", stop_after="evaluate").summary
    assert summary["method_facts"]["per_seed"][0]["mean_teacher_loss"] > 0


@pytest.mark.parametrize(
    ("changes", "kind", "what"),
    [
        ({"head": "core/gaussian", "method": {"use": "core/adaptive", "mode": "annealing"}}, "gaussian", "gaussian"),
        ({"objectives": {"soft": ["core/dist"]}}, "multiclass", "one soft term 'core/soft-targets'"),
        ({"student": "core/decision-tree"}, "multiclass", "is an estimator"),
        (
            {"method": {"use": "core/adaptive", "mode": "annealing"}, "train": {"student": {"epochs": 1}}},
            "multiclass",
            "an epoch for each",
        ),
    ],
)
def test_what_it_does_not_serve_is_told_before_training(
    changes: dict[str, Any], kind: str, what: str, tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleError, match=what):
        stillhouse.run(recipe(kind, **changes), out=tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()


def test_wrong_options_are_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="tau"):
        stillhouse.run(recipe(method={"use": "core/adaptive", "tau": 0}), out=tmp_path / "run")


def test_a_head_that_does_not_weigh_rows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unweighted(self: Head, prediction: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(prediction, batch["target"])

    monkeypatch.setattr(heads.Multiclass, "hard_loss", unweighted)
    with pytest.raises(IncompatibleError, match=r"does not weigh rows by batch\['weight'\]"):
        stillhouse.run(recipe(), out=tmp_path / "run")
