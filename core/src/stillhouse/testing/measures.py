"""Checks of extra metrics and of objectives, on predictions that are made up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import PluginError
from stillhouse.kinds import SEQUENCE_IGNORE, OutputKind
from stillhouse.plugins.checks import Planned, label
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import MetricSpec, ObjectiveSpec
from stillhouse.testing.judges import check_scalar, edge_cases, perfect, refuse_broadcasting, wrong
from stillhouse.testing.models import expected_shape
from stillhouse.testing.workbench import Workbench
from stillhouse.types import Batch, DataInfo, TensorSplit

CLASSES = 3


def example(kind: OutputKind, rows: int = 24) -> tuple[int, Batch]:
    """Width of the prediction and a batch of made-up targets of one kind, every class among them."""
    generator = torch.Generator().manual_seed(3)
    shapes = {
        OutputKind.MULTICLASS: (rows,),
        OutputKind.BINARY: (rows,),
        OutputKind.MULTILABEL: (rows, CLASSES),
        OutputKind.REGRESSION: (rows,),
        OutputKind.GAUSSIAN: (rows,),
        OutputKind.SEGMENTATION: (rows, 6, 6),
        OutputKind.SEQUENCE: (rows, 5),
    }
    shape = shapes[kind]
    if kind in (OutputKind.REGRESSION, OutputKind.GAUSSIAN):
        target = torch.randn(shape, generator=generator)
    elif kind in (OutputKind.BINARY, OutputKind.MULTILABEL):
        target = torch.randint(0, 2, shape, generator=generator).float()
    else:
        target = torch.randint(0, CLASSES, shape, generator=generator)
    if kind is OutputKind.SEQUENCE:
        target[0, -1] = SEQUENCE_IGNORE
    outputs = {OutputKind.BINARY: 1, OutputKind.REGRESSION: 1, OutputKind.GAUSSIAN: 2}.get(kind, CLASSES)
    return outputs, {"target": target, "index": torch.arange(rows)}


def plan_metric(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``metrics`` and ``edges``."""
    where, spec = label(component), component.spec
    assert isinstance(spec, MetricSpec)

    def metric() -> Callable[[Tensor, Batch], float]:
        bench.require(component, "target", "shape", "options")
        made: Callable[[Tensor, Batch], float] = component.load()(**bench.component_options(component))
        return made

    def known() -> str:
        measure, measured = metric(), []
        for kind in map(OutputKind, spec.kinds):
            outputs, rows = example(kind)
            refuse_broadcasting(measure, perfect(kind, outputs, rows["target"]), rows, "the metric", spec.target)
            good, bad = (float(measure(make(kind, outputs, rows["target"]), dict(rows))) for make in (perfect, wrong))
            if not (math.isfinite(good) and math.isfinite(bad)):
                raise PluginError(
                    f"of a {kind} prediction it gave {good} when perfect and {bad} when wrong",
                    where=spec.target,
                    fix="return a finite number, or leave the kind out of MetricSpec.kinds",
                )
            if (good <= bad) if spec.higher_is_better else (good >= bad):
                raise PluginError(
                    f"of a perfect {kind} prediction it is {good:.4g}, and of a wrong one {bad:.4g}",
                    where=spec.target,
                    fix="correct the metric, or higher_is_better",
                )
            measured.append(str(kind))
        return ", ".join(measured)

    def edges() -> None:
        bench.require(component, "metrics")
        measure = metric()
        for kind in map(OutputKind, spec.kinds):
            outputs, rows = example(kind)
            guess = perfect(kind, outputs, rows["target"])
            edge_cases(measure, guess, rows, kind=kind, who="the metric", where=spec.target)

    yield Planned(id=f"metrics[{where}]", verify=known)
    yield Planned(id=f"edges[{where}]", verify=edges)


FEATURES = ((6, 8, 5, 5), (6, 7, 8), (6, 8))
"""Shapes of features: maps, tokens, vectors; an objective has to take one of them."""


def plan_objective(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``loss``."""
    where, spec = label(component), component.spec
    assert isinstance(spec, ObjectiveSpec)

    def loss() -> str:
        bench.require(component, "target", "shape", "options")
        objective = component.load()(**bench.component_options(component))
        if hasattr(objective, "prepare"):
            _prepare(objective)
        if spec.level == "feature":
            return _feature_loss(objective, spec)
        for kind in map(OutputKind, spec.kinds):
            outputs, rows = example(kind, rows=6)
            shape = expected_shape(kind, outputs, rows["target"])
            extras = {name: rows[name] for name in spec.extras if name in rows}
            _objective(objective, shape, extras, spec, f"for {kind} predictions")
        return ", ".join(map(str, spec.kinds))

    yield Planned(id=f"loss[{where}]", verify=loss)


def _prepare(objective: Any) -> None:
    """What the framework gives to an objective before the first step: the rows of `example`."""
    _, rows = example(OutputKind.MULTICLASS, rows=FEATURES[0][0])
    objective.prepare(DataInfo(inputs={}, classes=("a", "b", "c")), TensorSplit(rows))


def _feature_loss(objective: Any, spec: ObjectiveSpec) -> str:
    _, rows = example(OutputKind.MULTICLASS, rows=FEATURES[0][0])
    extras = {name: rows[name] for name in spec.extras if name in rows}
    first: Exception | None = None
    for shape in FEATURES:
        try:
            _objective(objective, shape, extras, spec, f"for features {shape}")
            return f"features {shape}"
        except PluginError:
            raise
        except Exception as error:
            first = first or error
    assert first is not None
    raise first


def _objective(objective: Any, shape: tuple[int, ...], extras: Batch, spec: ObjectiveSpec, what: str) -> None:
    generator = torch.Generator().manual_seed(1)
    leaf = torch.randn(shape, generator=generator).requires_grad_()
    student, teacher = leaf.clone(), torch.randn(shape, generator=generator)
    before = {"student": leaf.detach().clone(), "teacher": teacher.clone()}
    loss = objective(student, teacher, **extras)
    for name, now in (("student", student.detach()), ("teacher", teacher)):
        if not torch.equal(now, before[name]):
            raise PluginError(
                f"{what} the objective changes what the {name} said in place",
                where=spec.target,
                fix=f"write {name} = {name} * 2 and not {name} *= 2, and use no method that ends in an underscore: "
                "other losses and metrics read the same tensor",
            )
    check_scalar(loss, f"the loss {what}", spec.target)
    (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True) if loss.requires_grad else (None,)
    if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
        raise PluginError(
            f"{what} no finite gradient reaches the student",
            where=spec.target,
            fix="compute the loss from the student's tensor with differentiable operations",
        )
    if "target" not in spec.extras:
        same = float(objective(teacher.detach().clone(), teacher.detach()))
        other = float(loss.detach())
        if same > other:
            raise PluginError(
                f"{what} the loss of a student that equals the teacher is {same:.4g}, of another {other:.4g}",
                where=spec.target,
                fix="a distillation loss is smallest where student and teacher agree",
            )
