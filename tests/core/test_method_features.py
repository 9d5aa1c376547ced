"""core/spot-adaptive, core/denoised and core/missing-modality: methods that look at inner features."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.methods.denoised import STEPS, Diffusion
from stillhouse.methods.missing import ByClass
from stillhouse.methods.spots import Routed
from stillhouse.objectives import Hints
from stillhouse.training.learner import Distillation
from stillhouse.training.loss import DistillationLoss, Term
from stillhouse.types import Batch, Outputs

HINTS = "objectives.soft=[{use: core/hints, student: backbone, teacher: backbone}, {use: soft, temperature: 2}]"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.out = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        prediction: Tensor = self.out(self.body(x).tanh())
        return prediction


def hard(prediction: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(prediction, batch["target"])


def learner(alpha: float = 0.25) -> tuple[Distillation, Tensor]:
    """A student with one spot, whose teacher has the feature that is returned."""
    feature = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    said = Outputs(torch.zeros(6, 2), {"body": feature})
    term = Term(name="hints", objective=Hints(), weight=2.0, student="body", teacher="body")
    base = Distillation(Net(), ["x"], DistillationLoss(hard, [term], alpha), lambda batch: said)
    return base, feature


BATCH = {
    "x": torch.randn(6, 4, generator=torch.Generator().manual_seed(2)),
    "target": torch.tensor([0, 1, 1, 0]),  # two rows have no label
}


@pytest.mark.parametrize("opened", [0.0, 1.0])
def test_a_step_with_all_gates_open_or_closed_is_the_formula(opened: float) -> None:
    base, feature = learner()
    net = base.student
    assert isinstance(net, Net)
    own = net.body(BATCH["x"])
    routed = Routed(base, (Outputs(net(BATCH["x"]), {"body": own}), base.teacher(BATCH)), 0.5, 1.0)
    policy = routed.policies[0]
    assert isinstance(policy, nn.Linear)
    policy.weight.data.zero_()
    policy.bias.data = torch.tensor([1e4, -1e4]) if opened else torch.tensor([-1e4, 1e4])
    total, values = routed(BATCH, 4)
    path = feature if opened else own
    of_routed = F.cross_entropy(net.out(path.tanh())[:4], BATCH["target"])
    distance = ((own - feature) ** 2).mean() if opened else torch.zeros(())
    of_labels = F.cross_entropy(net(BATCH["x"])[:4], BATCH["target"])
    torch.testing.assert_close(total, 0.25 * of_labels + 0.75 * 2.0 * distance + 0.5 * of_routed)
    assert float(values["gates"]["raw"]) == opened
    assert not net.body._forward_hooks


def test_gates_learn_from_the_routed_students_loss_alone() -> None:
    base, _ = learner()
    routed = Routed(base, (base.outputs(BATCH), base.teacher(BATCH)), 0.5, 1.0)
    torch.manual_seed(0)
    total, _ = routed(BATCH, 4)
    whole = torch.autograd.grad(total, routed.policies[0].weight, retain_graph=True)[0]
    assert torch.count_nonzero(whole)
    base.loss.weights = [0.0]
    torch.manual_seed(0)
    without = torch.autograd.grad(routed(BATCH, 4)[0], routed.policies[0].weight)[0]
    torch.testing.assert_close(whole, without)


def terms(folder: Path) -> list[set[str]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [set(line["train"]["terms"]) for line in lines if line["stage"] == "student"]


@pytest.mark.parametrize(
    ("method", "extra"),
    [
        ({"use": "core/spot-adaptive", "route_weight": 0.3}, {"routed", "gates"}),
        ({"use": "core/denoised", "steps": 2, "width": 8}, {"diffusion"}),
        ({"use": "core/missing-modality", "student": "backbone", "teacher": "backbone"}, {"classes"}),
    ],
)
def test_runs_resume_to_the_bit_and_log_their_terms(
    method: dict[str, Any], extra: set[str], assert_resumes: Callable[..., Any]
) -> None:
    result = assert_resumes(method, [""], HINTS)
    assert all(each == {"hard", "core/hints", "core/soft-targets", *extra} for each in terms(result.folder))
    assert result.summary["verdict"]["sentence"]


def test_what_they_do_not_serve_is_told_before_training(distil: Callable[..., Any]) -> None:
    for method in ("core/spot-adaptive", "core/denoised"):
        with pytest.raises(IncompatibleError, match="without a term between features"):
            distil(method)
    relational = HINTS.replace("core/hints", "core/relational")
    with pytest.raises(IncompatibleError, match="no loss of a single row"):
        distil("core/spot-adaptive", relational)
    with pytest.raises(IncompatibleError, match="serves multiclass, binary"):
        distil("core/missing-modality", "head=core/regression", "dataset.kind=regression", "objectives.soft=[soft]")
    with pytest.raises(IncompatibleError, match="no module 'bckbone'"):
        distil({"use": "core/missing-modality", "student": "bckbone"})
    with pytest.raises(IncompatibleError, match="no module to tap"):
        distil({"use": "core/missing-modality", "teacher": "backbone"}, "teacher=core/random-forest")
    with pytest.raises(OptionError, match="steps"):
        distil({"use": "core/denoised", "steps": 5, "start_step": 4}, HINTS)
    with pytest.raises(IncompatibleError, match="unlike shapes"):
        distil("core/denoised", relational)


def test_denoising_is_ddim_by_hand_and_its_network_learns_from_its_own_loss() -> None:
    example = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    network = Diffusion(example, width=5, steps=2, start=400)
    student = example.clone().requires_grad_()
    torch.manual_seed(2)
    found = network.denoise(student)
    torch.manual_seed(2)
    values = 0.5 * student + 0.5 * torch.randn(4, 3)
    shares = np.cumprod(1 - np.linspace(1e-4, 2e-2, STEPS))
    for now, then in ((400, 200), (200, 0)):
        noise = network.out(F.silu(network.hidden(torch.cat((values, torch.full((4, 1), now / STEPS)), dim=1))))
        clean = (values - math.sqrt(1 - shares[now]) * noise) / math.sqrt(shares[now])
        values = math.sqrt(shares[then]) * clean + math.sqrt(1 - shares[then]) * noise
    torch.testing.assert_close(found, values)
    found.square().sum().backward()
    assert torch.count_nonzero(student.grad)
    assert network.match.grad is not None
    assert network.hidden.weight.grad is None
    network.fit(example).backward()
    assert torch.count_nonzero(network.hidden.weight.grad)


@pytest.mark.parametrize("shape", [(4, 3), (4, 6, 3), (4, 3, 2, 2)])
def test_a_fitted_diffusion_takes_noise_away(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = Diffusion(torch.zeros(shape), width=32, steps=5, start=300)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    clean = torch.ones(64, *shape[1:])  # all that the teacher ever says
    for _ in range(150):
        optimizer.zero_grad()
        network.fit(clean).backward()
        optimizer.step()
    noisy = clean + 0.5 * torch.randn_like(clean)
    with torch.no_grad():
        assert (network.denoise(noisy) - clean).square().mean() < 0.5 * (noisy - clean).square().mean()


def test_the_relation_to_classes_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(5, 3, generator=generator), torch.randn(5, 4, generator=generator)
    teacher.requires_grad_()
    student.requires_grad_()
    target = torch.tensor([0, 2, 0])  # two rows have no label, and class 1 no row
    base, _ = learner()
    by_class = ByClass(base, None, None, None, 1.0, 3)
    value = by_class.relation(student, teacher, target)
    total = 0.0
    for i in range(5):
        for k in (0, 2):
            near = []
            for x in (student.detach().numpy(), teacher.detach().numpy()):
                unit = [row / np.linalg.norm(row) for row in x]
                centre = sum(unit[j] for j in range(3) if target[j] == k)
                near.append(float(np.dot(unit[i], centre / np.linalg.norm(centre))))
            total += (near[0] - near[1]) ** 2
    assert value.item() == pytest.approx(total / 15, rel=1e-5)
    value.backward()
    assert teacher.grad is None
    with_zeros = student.detach().clone()
    with_zeros[3] = 0.0
    with_zeros.requires_grad_()
    by_class.relation(with_zeros, teacher, target).backward()
    assert torch.isfinite(with_zeros.grad).all()
    assert torch.count_nonzero(with_zeros.grad[3]) == 0


PLUGIN = """
import torch
from torch import nn
from stillhouse.plugins.hookspecs import hookimpl
from stillhouse.plugins.specs import DatasetSpec, StudentSpec
from stillhouse.types import DataInfo, Splits, TensorSplit, TensorSpec

def pair(context, *, rows: int = 160):
    generator = torch.Generator().manual_seed(context.seed)
    def part(start):
        image, text = torch.randn(rows, 3, generator=generator), torch.randn(rows, 2, generator=generator)
        target = (image[:, 0] + text[:, 0] > 0).long()
        return TensorSplit({"image": image, "text": text, "target": target, "index": torch.arange(start, start + rows)})
    info = DataInfo(inputs={"image": TensorSpec((3,)), "text": TensorSpec((2,))}, classes=("no", "yes"))
    return Splits(train=part(0), val=part(1000), test=part(2000), info=info)

class TextOnly(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.out = nn.Linear(2, task.outputs)
    def forward(self, text):
        return self.out(text)

@hookimpl
def stillhouse_datasets():
    yield DatasetSpec(name="pair", target="two_inputs:pair", summary="Two inputs", offline=True)

@hookimpl
def stillhouse_students():
    yield StudentSpec(name="text-only", target="two_inputs:TextOnly", summary="Sees one input")
"""


def test_inputs_that_the_student_lacks_are_noted(tmp_path: Path) -> None:
    import stillhouse
    from stillhouse.plugins.manager import Manager

    file = tmp_path / "two_inputs.py"
    file.write_text(PLUGIN)
    recipe = {
        "name": "missing",
        "head": "core/multiclass",
        "dataset": "two_inputs/pair",
        "teacher": {"use": "core/mlp", "hidden": [8]},
        "student": "two_inputs/text-only",
        "method": "core/missing-modality",
        "train": {"teacher": {"epochs": 1}, "student": {"epochs": 1}},
        "evaluate": {"latency_samples": 5, "throughput_batch": 8},
        "seeds": [0],
    }
    result = stillhouse.run(recipe, out=tmp_path / "run", stop_after="evaluate", manager=Manager(files=[file]))
    assert result.summary["method_facts"]["per_seed"][0]["missing_inputs"] == "image"
