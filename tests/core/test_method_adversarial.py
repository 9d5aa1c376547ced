"""``core/adversarial``: the attack and the loss of a step against formulas written here, runs, resuming, what is
incompatible."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import stillhouse
from stillhouse import hookimpl
from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.heads import Multiclass
from stillhouse.methods.adversarial import Adversarial, RobustDistillation, perturb
from stillhouse.objectives import SoftTargets
from stillhouse.plugins.manager import using
from stillhouse.plugins.specs import DatasetSpec, StudentSpec
from stillhouse.progress import Silent
from stillhouse.training import loop
from stillhouse.training.learner import Distillation
from stillhouse.training.loss import DistillationLoss, Term
from stillhouse.types import Batch, DataInfo, Outputs, Splits, TensorSpec, TensorSplit


def net(seed: int = 0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh(), nn.Linear(8, 3))


def rows(seed: int = 0, count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(count, 5, generator=generator),
        "target": torch.randint(0, 3, (count,), generator=generator),
        "index": torch.arange(count),
    }


HEAD = Multiclass(DataInfo(inputs={"x": TensorSpec((5,))}, classes=("a", "b", "c")))


def by_hand(
    model: nn.Module, x: Tensor, loss: Any, *, epsilon: float, steps: int, step_size: float, start: Tensor
) -> Tensor:
    """PGD as its paper has it: a gradient for each row, a signed step, a projection."""
    moved = x + start
    for _ in range(steps):
        probe = moved.clone().requires_grad_()
        loss(model(probe)).backward()
        assert probe.grad is not None
        moved = moved + step_size * probe.grad.sign()
        moved = torch.max(torch.min(moved, x + epsilon), x - epsilon)
    return moved.detach()


def test_fgsm_and_pgd_are_what_their_papers_say() -> None:
    model, batch = net(), rows()
    target = batch["target"]

    def loss(moved: Batch) -> Tensor:
        return F.cross_entropy(model(moved["x"]), target)

    fgsm = perturb(loss, batch, ["x"], epsilon=0.3, steps=1, step_size=0.3)["x"]
    probe = batch["x"].clone().requires_grad_()
    F.cross_entropy(model(probe), target).backward()
    assert probe.grad is not None
    torch.testing.assert_close(fgsm, batch["x"] + 0.3 * probe.grad.sign())
    start = torch.rand(6, 5) * 0.2 - 0.1
    pgd = perturb(loss, batch, ["x"], epsilon=0.1, steps=7, step_size=0.03, start={"x": start})["x"]
    wanted = by_hand(
        model, batch["x"], lambda z: F.cross_entropy(z, target), epsilon=0.1, steps=7, step_size=0.03, start=start
    )
    torch.testing.assert_close(pgd, wanted)
    with torch.no_grad():
        assert F.cross_entropy(model(pgd), target) > F.cross_entropy(model(batch["x"]), target)
    assert not pgd.requires_grad
    assert torch.equal(batch["x"], rows()["x"])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    epsilon=st.floats(0.001, 3),
    steps=st.integers(1, 6),
    factor=st.floats(0.1, 4),
    low=st.one_of(st.none(), st.floats(-1, 0)),
    high=st.one_of(st.none(), st.floats(0.1, 1)),
)
def test_an_attack_stays_within_epsilon_and_never_moves_out_of_the_bounds(
    seed: int, epsilon: float, steps: int, factor: float, low: float | None, high: float | None
) -> None:
    model, batch = net(seed), rows(seed)
    x = batch["x"]
    start = {"x": (torch.rand(x.shape) * 2 - 1) * epsilon}
    moved = perturb(
        lambda each: F.cross_entropy(model(each["x"]), batch["target"]),
        batch,
        ["x"],
        epsilon=epsilon,
        steps=steps,
        step_size=factor * epsilon,
        low=low,
        high=high,
        start=start,
    )["x"]
    assert float((moved - x).abs().max()) <= epsilon + 1e-5
    if low is not None:
        assert bool((moved >= torch.minimum(x, torch.tensor(low)) - 1e-6).all())
    if high is not None:
        assert bool((moved <= torch.maximum(x, torch.tensor(high)) + 1e-6).all())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 8), epsilon=st.floats(0.01, 2))
def test_more_steps_never_weaken_the_attack_on_a_linear_model(seed: int, steps: int, epsilon: float) -> None:
    torch.manual_seed(seed)
    weight, x, target = torch.randn(5), torch.randn(4, 5), torch.randint(0, 2, (4,)).float()

    def loss(moved: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(moved["x"] @ weight, target)

    start = {"x": (torch.rand(4, 5) * 2 - 1) * epsilon}
    values = [
        float(loss(perturb(loss, {"x": x}, ["x"], epsilon=epsilon, steps=n, step_size=epsilon / 4, start=start)))
        for n in range(1, steps + 1)
    ]
    assert all(later >= earlier - 1e-5 for earlier, later in itertools.pairwise(values))
    whole = perturb(loss, {"x": x}, ["x"], epsilon=epsilon, steps=8, step_size=epsilon / 4, start=start)["x"]
    worst = x + epsilon * (1 - 2 * target)[:, None] * weight.sign()  # the corner, known for a linear model
    torch.testing.assert_close(whole, worst)


class Fixed:
    """A teacher that says the same of every row, whatever its inputs."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.asked = logits, []

    def __call__(self, batch: Batch) -> Outputs:
        self.asked.append(batch["x"].clone())
        return Outputs(self.logits[batch["index"]])


@pytest.mark.parametrize("labelled", [6, 4])
@pytest.mark.parametrize("objective", ["ard", "rslad"])
def test_the_loss_of_a_step_is_that_of_the_papers(objective: Any, labelled: int) -> None:
    student, batch = net(norm=True), rows()
    x, target = batch["x"], batch["target"][:labelled]
    teacher = Fixed(torch.randn(6, 3) * 2)
    term = Term(name="soft", objective=SoftTargets(temperature=2.0), weight=0.7)
    base = Distillation(student, ["x"], DistillationLoss(HEAD.hard_loss, [term], 0.3), teacher)
    method = Adversarial(objective=objective, epsilon=0.2, steps=3, step_size=0.1)
    learner = RobustDistillation(base, method, ["x"]).train()
    given_batch = {**batch, "target": target}
    twin = copy.deepcopy(student)

    torch.manual_seed(3)
    total, values = learner(given_batch, labelled)

    assert all(module.training for module in student.modules())
    (asked,) = teacher.asked
    assert torch.equal(asked, x), "the teacher sees clean inputs, once"
    torch.manual_seed(3)
    start = torch.empty_like(x).uniform_(-0.2, 0.2)

    def kl(z: Tensor, t: Tensor) -> Tensor:
        p, log_q = (t / 2).softmax(1), (z / 2).log_softmax(1)
        return 4 * (p * (p.log() - log_q)).sum(1).mean()

    def raised(z: Tensor) -> Tensor:
        if objective == "rslad":
            return kl(z, teacher.logits)
        parts = F.cross_entropy(z[:labelled], target)
        return parts + kl(z[labelled:], teacher.logits[labelled:]) if labelled < 6 else parts

    moved = by_hand(twin.eval(), x, raised, epsilon=0.2, steps=3, step_size=0.1, start=start)
    twin.train()
    perturbed, clean = twin(moved), twin(x)
    soft = kl(perturbed, teacher.logits)
    if objective == "rslad":
        soft = 5 / 6 * soft + 1 / 6 * kl(clean, teacher.logits)
    torch.testing.assert_close(total, 0.3 * F.cross_entropy(clean[:labelled], target) + 0.7 * 0.7 * soft)
    assert math.isclose(float(total.detach()), sum(float(each["weighted"]) for each in values.values()), rel_tol=1e-5)
    total.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_the_statistics_of_normalisation_are_those_of_the_two_forwards_alone() -> None:
    student, batch = net(norm=True), rows()
    twin = net(norm=True)
    term = Term(name="soft", objective=SoftTargets())
    base = Distillation(student, ["x"], DistillationLoss(HEAD.hard_loss, [term], 0.5), Fixed(torch.randn(6, 3)))
    learner = RobustDistillation(base, Adversarial(epsilon=0.2, steps=4, random_start=False), ["x"]).train()
    moved = learner.attack(batch, 6, base.teacher(batch))
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in student.state_dict().items())
    learner(batch, 6)
    twin.train()
    for x in (moved["x"], batch["x"]):
        twin(x)
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name])


def recipe(kind: str = "multiclass", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "robust",
        "head": f"core/{kind}",
        "dataset": {"use": "core/synthetic", "kind": kind, "rows": 200, "unlabelled": 64},
        "teacher": {"use": "core/mlp", "hidden": [24]},
        "student": {"use": "core/mlp", "hidden": [6]},
        "method": {"use": "core/adversarial", "epsilon": 0.2, "steps": 2},
        "train": {"teacher": {"epochs": 6, "batch_size": 32}, "student": {"epochs": 3, "batch_size": 32}},
        "evaluate": {"latency_samples": 20, "throughput_batch": 32},
        "seeds": [0],
    }
    return {**values, **changes}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "student" / "seed-0" / "model.safetensors")


class Killed(Exception):
    pass


class Stop(Silent):
    def epoch(self, record: dict[str, Any]) -> None:
        if record.get("stage") == "student" and record["epoch"] == 1:
            raise Killed


def test_a_run_judges_all_networks_under_attack_and_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stillhouse.run(recipe(), out=tmp_path / "whole")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        stillhouse.run(recipe(), out=tmp_path / "killed", reporter=Stop())
    assert (tmp_path / "killed" / "student" / "seed-0" / "checkpoint.pt").exists()
    again = stillhouse.run(recipe(), out=tmp_path / "killed", stop_after="evaluate")
    first, second = weights(whole.folder), weights(again.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    summary = whole.summary
    assert summary["method"]["id"] == "core/adversarial"
    assert summary["verdict"]["sentence"]
    facts = summary["method_facts"]["per_seed"][0]
    assert facts == again.summary["method_facts"]["per_seed"][0]
    for role in ("teacher", "baseline", "student"):
        assert facts["accuracy_clean"][role] == pytest.approx(summary[role]["metrics"]["test"]["accuracy"])
        assert facts["accuracy_pgd20"][role] <= facts["accuracy_clean"][role]
    assert {(each["name"], each["model"]) for each in summary["method_facts"]["table"]} >= {
        ("accuracy_fgsm", "student"),
        ("accuracy_pgd20", "teacher"),
    }
    terms = whole.folder / "metrics.jsonl"
    assert "core/soft-targets, perturbed" in terms.read_text()
    assert "core/soft-targets, clean" in terms.read_text()


@pytest.mark.parametrize("kind", ["binary", "regression", "gaussian"])
def test_estimators_teach_and_other_heads_learn(kind: str, tmp_path: Path) -> None:
    given_recipe = recipe(kind, method={"use": "core/adversarial", "objective": "ard", "steps": 1})
    given_recipe["train"] = {"teacher": {"epochs": 1}, "student": {"epochs": 1}}
    if kind != "gaussian":
        given_recipe["teacher"] = {"use": "core/random-forest", "n_estimators": 5}
    facts = stillhouse.run(given_recipe, out=tmp_path / "run", stop_after="evaluate").summary["method_facts"]
    (found,) = facts["per_seed"]
    models = {"baseline", "student"} | ({"teacher"} if kind == "gaussian" else set())
    assert all(set(each) == models for each in found.values())
    assert len(found) == 3


def test_what_it_does_not_serve_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="'y' is no input of floats"):
        stillhouse.run(recipe(method={"use": "core/adversarial", "inputs": ["y"]}), out=tmp_path / "a")
    assert not (tmp_path / "a" / "teacher").exists()
    with pytest.raises(OptionError, match="low must be below high"):
        stillhouse.run(recipe(method={"use": "core/adversarial", "low": 1.0, "high": 0.0}), out=tmp_path / "b")
    with pytest.raises(OptionError, match="epsilon"):
        stillhouse.run(recipe(method={"use": "core/adversarial", "epsilon": 0}), out=tmp_path / "c")
    with pytest.raises(IncompatibleError, match="is an estimator"):
        stillhouse.run(recipe(student="core/decision-tree"), out=tmp_path / "d")
    soft = [{"use": "core/hints", "student": "0", "teacher": "0"}]
    with pytest.raises(IncompatibleError, match="names taps"):
        stillhouse.run(recipe(objectives={"soft": soft}), out=tmp_path / "e")


class Words:
    @hookimpl
    def stillhouse_datasets(self) -> list[DatasetSpec]:
        return [DatasetSpec(name="words", target=f"{__name__}:words", summary="tokens")]

    @hookimpl
    def stillhouse_students(self) -> list[StudentSpec]:
        return [StudentSpec(name="bag", target=f"{__name__}:bag", summary="a bag of words")]


def words(context: Any) -> Splits:
    def split(first: int) -> TensorSplit:
        tokens = torch.randint(0, 9, (20, 4))
        return TensorSplit({"tokens": tokens, "target": tokens[:, 0] % 2, "index": torch.arange(20) + first})

    info = DataInfo(inputs={"tokens": TensorSpec((4,), "int64")}, classes=("a", "b"))
    return Splits(info=info, train=split(0), val=split(100), test=split(200))


def bag(task: Any) -> nn.Module:
    return Bag()


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(9, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embed(tokens)


def test_inputs_without_floats_are_told(tmp_path: Path) -> None:
    with using(Words(), name="t") as manager, pytest.raises(IncompatibleError, match="no input of floats"):
        stillhouse.run(recipe(dataset="t/words", teacher="t/bag", student="t/bag"), out=tmp_path / "r", manager=manager)
