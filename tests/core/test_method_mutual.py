"""core/mutual: peers that learn from labels and from each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import stillhouse
from stillhouse.errors import IncompatibleError, OptionError, RecipeError, UnknownComponentError
from stillhouse.heads import Multiclass, Regression
from stillhouse.kinds import OutputKind
from stillhouse.methods.mutual import Mutual, Peers
from stillhouse.objectives.prediction import SoftTargets, TeacherMSE
from stillhouse.plugins.manager import default_manager
from stillhouse.trained import Trained
from stillhouse.training.loss import Term
from stillhouse.types import DataInfo, Head, Task, TensorSpec

INFO = DataInfo(inputs={"x": TensorSpec((3,)), "extra": TensorSpec((2,))}, classes=("a", "b", "c", "d"))
VALUES = DataInfo(inputs={"x": TensorSpec((3,)), "extra": TensorSpec((2,))})


class One(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Both(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(5, outputs)

    def forward(self, x: Tensor, extra: Tensor) -> Tensor:
        return self.layer(torch.cat([x, extra], 1))


def peers(outputs: int, kind: OutputKind) -> dict[str, Trained]:
    torch.manual_seed(0)
    task = Task(info=INFO, kind=kind, outputs=outputs)
    component = default_manager().registry.get("student", "core/mlp")
    made = {
        "peer-1": (One(outputs), ("x",)),
        "peer-2": (Both(outputs), ("x", "extra")),
        "peer-3": (One(outputs), ("x",)),
    }
    return {
        name: Trained(
            component=component,
            options={},
            task=task,
            model=model,
            inputs=inputs,
            features=lambda batch: None,  # type: ignore[arg-type, return-value]
        )
        for name, (model, inputs) in made.items()
    }


def learner(head: Head, term: nn.Module, target: str, weight: float) -> Peers:
    made = peers(head.outputs, head.kind)
    return Peers(made, head.hard_loss, Term(name="soft", objective=term), weight, target, head.kind)


def batch(target: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"x": torch.randn(8, 3), "extra": torch.randn(8, 2), "target": target, "index": torch.arange(8)}


def said(model: Peers, rows: dict[str, Tensor]) -> list[Tensor]:
    x, extra = rows["x"], rows["extra"]
    one, two, three = model.judged.values()
    return [one(x=x), two(x=x, extra=extra), three(x=x)]


@pytest.mark.parametrize("target", ["peers", "ensemble"])
def test_the_loss_and_its_gradients_are_those_of_the_equations(target: str) -> None:
    model = learner(Multiclass(INFO), SoftTargets(temperature=1.0), target, 0.7)
    rows = batch(torch.tensor([0, 1, 2, 3, 0]))  # three rows are without labels
    total, values = model(rows, 5)
    total.backward()
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    logits = said(model, rows)
    by_hand = torch.zeros(())
    hards, softs = [], []
    for k, own in enumerate(logits):
        others = [each.detach().softmax(1) for each in logits]
        teaching = [torch.stack(others).mean(0)] if target == "ensemble" else others[:k] + others[k + 1 :]
        log_own = own.log_softmax(1)
        soft = torch.stack([(p * (p.log() - log_own)).sum(1).mean() for p in teaching]).mean()
        hard = F.cross_entropy(own[:5], rows["target"])
        hards.append(float(hard.detach()))
        softs.append(float(soft.detach()))
        # Each peer's own loss alone gives its gradient.
        loss = hard + 0.7 * soft
        loss.backward()
        by_hand = by_hand + loss.detach()
    expected = [parameter.grad for parameter in model.parameters()]
    assert float(total) == pytest.approx(float(by_hand), rel=1e-5)
    assert len(found) == len(expected) == 6
    for one, other in zip(found, expected, strict=True):
        assert other is not None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert float(values["hard"]["weighted"]) == pytest.approx(sum(hards), rel=1e-5)
    assert float(values["mutual"]["raw"]) == pytest.approx(sum(softs) / 3, rel=1e-4)


def test_values_are_drawn_to_each_other_by_squared_error() -> None:
    model = learner(Regression(VALUES), TeacherMSE(), "peers", 1.0)
    rows = batch(torch.randn(8))
    one, two, three = said(model, rows)
    pairs = (one - two).square().mean() + (one - three).square().mean() + (two - three).square().mean()
    assert float(model(rows, 8)[1]["mutual"]["weighted"].detach()) == pytest.approx(float(pairs.detach()), rel=1e-5)


def test_unlike_peers_are_judged_each_with_its_own_inputs() -> None:
    model = learner(Multiclass(INFO), SoftTargets(), "peers", 1.0)
    assert [model.inputs_of(name) for name in model.judged] == [("x",), ("x", "extra"), ("x",)]


def test_the_best_peer_of_the_students_own_architecture_is_deployed(assert_resumes: Callable[..., Any]) -> None:
    wide = {"use": "core/mlp", "hidden": [64]}
    result = assert_resumes({"use": "core/mutual", "peers": 2, "others": [wide]}, [""])
    summary = result.summary
    assert summary["method"]["id"] == "core/mutual"
    assert summary["baseline"]["metrics"]["test"]
    assert summary["verdict"]["sentence"]
    facts = summary["method_facts"]["per_seed"][0]
    names = {"peer-1", "peer-2", "peer-3", "ensemble"}
    assert set(facts["val_accuracy"]) == set(facts["test_accuracy"]) == names
    own = {name: facts["val_accuracy"][name] for name in ("peer-1", "peer-2")}
    assert facts["deployed"] == max(own, key=lambda name: own[name])
    assert summary["student"]["metrics"]["val"]["accuracy"] == own[facts["deployed"]]
    assert summary["student"]["metrics"]["test"]["accuracy"] == facts["test_accuracy"][facts["deployed"]]
    assert summary["student"]["parameters"] == 16 * 8 + 8 + 8 * 4 + 4
    # Every peer is at its own best epoch.
    folder = result.folder / "student" / "seed-0"
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for name in ("peer-1", "peer-2", "peer-3"):
        best = max(record["judged"][name]["accuracy"] for record in records)
        assert facts["val_accuracy"][name] == best
    deployed = load_file(folder / "model.safetensors")
    kept = load_file(folder / "kept" / facts["deployed"] / "model.safetensors")
    assert all(torch.equal(deployed[name], kept[name]) for name in deployed)


def test_a_regression_runs_with_the_ensemble_as_target(distil: Callable[..., Any]) -> None:
    method = {"use": "core/mutual", "target": "ensemble", "weight": 0.5}
    result = distil(method, "head=core/regression", "dataset.kind=regression", "objectives.soft=[soft]")
    assert set(result.summary["method_facts"]["per_seed"][0]["val_rmse"]) == {"peer-1", "peer-2", "ensemble"}


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("{use: core/mutual, peers: 1}", OptionError, "nobody to learn from"),
        ("{use: core/mutual, peers: 0}", OptionError, "peers"),
        ("{use: core/mutual, target: all}", OptionError, "target"),
        ("{use: core/mutual, others: [core/mpl]}", UnknownComponentError, "mpl"),
        ("{use: core/mutual, others: [{hidden: [3]}]}", RecipeError, "takes students in 'others'"),
        ("{use: core/mutual, others: [core/decision-tree]}", IncompatibleError, "is an estimator"),
        ("{use: core/mutual, others: [{use: core/mlp, width: 3}]}", OptionError, "no option 'width'"),
    ],
)
def test_what_it_cannot_serve_is_told_before_anything_is_trained(
    method: str, error: type[Exception], message: str, tmp_path: Any
) -> None:
    with pytest.raises(error, match=message):
        stillhouse.run("core/quickstart", out=tmp_path / "run", overrides=["dataset.rows=60", f"method={method}"])
    assert not (tmp_path / "run" / "teacher").exists()
    assert Mutual().own == 2
    assert Mutual(others=("core/linear",)).own == 1
