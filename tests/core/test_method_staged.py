"""core/staged: stages on the same weights, features first and predictions second by default."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stillhouse
from stillhouse import hookimpl
from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.methods import MethodContext
from stillhouse.plugins.manager import using
from stillhouse.plugins.specs import StudentSpec
from stillhouse.training.learner import Distillation, Learner
from stillhouse.types import Task

HINT = "{use: core/hints, student: backbone.0, teacher: backbone.0}"
TERMS = f"objectives.soft=[{{use: soft, temperature: 2}}, {HINT}]"


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each phase of the last run was given, and the student's weights before and after it."""
    seen: list[dict[str, Any]] = []
    genuine = MethodContext.fit

    def watched(self: MethodContext, learner: Distillation, *, phase: str = "", **given: Any) -> Any:
        before = state(learner)
        adapters = [tensor.clone() for tensor in learner.loss.parameters()]
        history = genuine(self, learner, phase=phase, **given)
        seen.append(
            {
                "phase": phase,
                "given": given,
                "learner": learner,
                "before": before,
                "after": state(learner),
                "adapters": (adapters, [tensor.clone() for tensor in learner.loss.parameters()]),
                "history": history,
                "context": self,
            }
        )
        return history

    monkeypatch.setattr(MethodContext, "fit", watched)
    return seen


def state(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.student.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor], prefix: str = "") -> bool:
    return all(torch.equal(one[name], other[name]) for name in one if name.startswith(prefix))


def test_features_come_first_and_predictions_second_within_the_students_epochs(
    distil: Callable[..., Any], fits: list[dict[str, Any]]
) -> None:
    distil("core/staged", TERMS, "train.student.epochs=5")
    one, two = fits
    assert [each["phase"] for each in fits] == ["stage-1", "stage-2"]
    assert [len(each["history"]) for each in fits] == [2, 3]
    assert [term.name for term in one["learner"].loss.terms] == ["core/hints"]
    assert [term.name for term in two["learner"].loss.terms] == ["core/soft-targets"]
    assert equal(one["after"], two["before"]), "weights carry over"
    assert equal(one["before"], one["after"], "output"), "the head learns nothing from features"
    assert not equal(one["before"], one["after"], "backbone")
    assert one["given"]["select"] == "last"
    assert "select" not in two["given"]
    # Several processes need a gradient of every parameter, also of the head, which features do not reach.
    one["learner"].zero_grad()
    one["learner"](one["context"].splits.train.batch(range(10)), 10)[0].backward()
    assert float(one["learner"].student.output.weight.grad.abs().max()) == 0
    # The loss of the first stage by hand, with its adapter.
    context, learner = one["context"], one["learner"]
    batch = context.splits.train.batch(range(10))
    with torch.no_grad():
        term = learner.loss.terms[0]
        adapted = term.adapter(learner.student.backbone[0](batch["x"]))
        by_hand = F.mse_loss(adapted, context.teachers[0].model.backbone[0](batch["x"]))
        assert float(learner(batch, 10)[0]) == pytest.approx(float(by_hand), rel=1e-5)
        learner = two["learner"]
        learner.set_progress(0.0)
        said, teaching = learner.student(x=batch["x"]), context.teachers[0].model(x=batch["x"])
        soft = F.kl_div((said / 2).log_softmax(1), (teaching / 2).softmax(1), reduction="batchmean") * 4
        by_hand = 0.1 * F.cross_entropy(said, batch["target"]) + 0.9 * soft
        assert float(learner(batch, 10)[0]) == pytest.approx(float(by_hand), rel=1e-5)


def test_stages_take_terms_alpha_epochs_rate_rows_and_adapters_with_them(
    distil: Callable[..., Any], fits: list[dict[str, Any]]
) -> None:
    stages = [
        {"soft": [1], "alpha": 0.5, "epochs": 1, "lr": 0.003},
        {"soft": [0, 1], "alpha": {"schedule": "linear", "start": 0.0, "end": 1.0}, "epochs": 2},
        {"soft": [], "labelled_only": True, "epochs": 1},
    ]
    result = distil({"use": "core/staged", "stages": stages}, TERMS)
    one, two, three = fits
    assert [len(each["history"]) for each in fits] == [1, 2, 1]
    assert "select" not in one["given"], "a stage with labels is judged by them"
    assert len(one["adapters"][1]) == 2
    for end, start in zip(one["adapters"][1], two["adapters"][0], strict=True):
        assert torch.equal(end, start), "the adapter carries over"
    assert one["given"]["lr"] == 0.003
    hard = [each["history"][-1]["train"]["terms"]["hard"] for each in fits]
    assert hard[0]["weighted"] == pytest.approx(0.5 * hard[0]["raw"])
    assert two["history"][0]["train"]["terms"]["hard"]["weighted"] == 0
    assert hard[1]["weighted"] == pytest.approx(hard[1]["raw"])
    assert list(three["history"][0]["train"]["terms"]) == ["hard"]
    assert three["given"]["unlabelled"] is None
    facts = result.summary["method_facts"]["per_seed"][0]["val_accuracy"]
    assert set(facts) == {"stage-1", "stage-2", "stage-3"}
    assert facts["stage-3"] == result.summary["student"]["metrics"]["val"]["accuracy"]


class Normed(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, outputs)
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append((self.body.training, self.head.training))
        return self.head(self.body(x))


def normed(task: Task) -> nn.Module:
    """A student whose running statistics would show that a frozen module is not in eval mode."""
    return Normed(task.outputs)


def test_frozen_modules_keep_weights_and_statistics_and_learn_again_afterwards(
    distil: Callable[..., Any], fits: list[dict[str, Any]]
) -> None:
    stages = [{"epochs": 1, "frozen": ["body"]}, {"epochs": 1}]
    spec = StudentSpec(name="normed", target=f"{__name__}:normed", summary="With batch normalisation")
    module = types.SimpleNamespace(stillhouse_students=hookimpl(lambda: [spec]))
    with using(module, name="net") as manager:
        method = {"use": "core/staged", "stages": stages}
        distil(method, "student={use: net/normed}", "train.student.ema=0.5", manager=manager)
    one, two = fits
    assert equal(one["before"], one["after"], "body"), "statistics included"
    assert not equal(one["before"], one["after"], "head")
    assert not torch.equal(two["before"]["body.1.running_mean"], two["after"]["body.1.running_mean"])
    assert not equal(two["before"], two["after"], "body.0")
    student = one["learner"].student
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert (False, True) in student.modes
    assert (True, True) in student.modes


def test_an_interruption_in_any_stage_changes_no_bit(assert_resumes: Callable[..., Any]) -> None:
    stages = [{"soft": [1], "alpha": 0.0, "epochs": 2}, {"epochs": 2, "frozen": ["output"]}, {"soft": [0], "epochs": 2}]
    names = ["stage-1", "stage-2", "stage-3"]
    summary = assert_resumes({"use": "core/staged", "stages": stages}, names, TERMS).summary
    assert summary["method"]["id"] == "core/staged"
    assert summary["baseline"]["metrics"]["test"]
    assert summary["verdict"]["sentence"]


@pytest.mark.parametrize(
    ("method", "terms", "error", "message", "fix"),
    [
        ("core/staged", "[soft]", IncompatibleError, "features first", "taps"),
        ("core/staged", f"[{HINT}]", IncompatibleError, "features first", "taps"),
        ("{use: core/staged, stages: []}", "[soft]", OptionError, "stages", ""),
        ("{use: core/staged, stages: [{epoch: 3}]}", "[soft]", OptionError, "no 'epoch'; did you mean 'epochs'", ""),
        ("{use: core/staged, stages: [{epochs: 0}]}", "[soft]", OptionError, "stages", ""),
        ("{use: core/staged, stages: [{alpha: 2}]}", "[soft]", OptionError, "stages", ""),
        ("{use: core/staged, stages: [{soft: [1]}]}", "[soft]", OptionError, "no soft term 1", "from 0 to 0"),
        ("{use: core/staged, stages: [{soft: [-1]}]}", "[soft]", OptionError, "no soft term -1", ""),
        ("{use: core/staged, stages: [{soft: [], alpha: 0.5}]}", "[soft]", OptionError, "labels alone", "leave out"),
        ("{use: core/staged, stages: [{alpha: {schedule: step}}]}", "[soft]", OptionError, "schedule", ""),
        ("{use: core/staged, stages: [{frozen: [outputs]}]}", "[soft]", OptionError, "no module 'outputs'", "'output'"),
        ("{use: core/staged, stages: [{frozen: [backbone, output]}]}", "[soft]", OptionError, "nothing", "fewer"),
    ],
)
def test_stages_that_do_not_fit_are_told_before_anything_is_trained(
    method: str, terms: str, error: type[Exception], message: str, fix: str, tmp_path: Any
) -> None:
    changes = ["dataset.rows=60", f"method={method}", f"objectives.soft={terms}"]
    with pytest.raises(error, match=message) as caught:
        stillhouse.run("core/quickstart", out=tmp_path / "run", overrides=changes)
    assert fix in caught.value.fix  # type: ignore[attr-defined]
    assert not (tmp_path / "run" / "teacher").exists()
