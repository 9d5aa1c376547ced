"""Checks of extra metrics and of objectives, on predictions that are made up."""

from __future__ import annotations

import contextlib
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
SEVERAL = 4
"""Values of a row where one alone does not do: the hours of a forecast."""
OF_VALUES = (OutputKind.REGRESSION, OutputKind.GAUSSIAN)


def example(kind: OutputKind, rows: int = 24, *, values: int = 1) -> tuple[int, Batch]:
    """Width of the prediction and a batch of made-up targets of one kind, every class among them.

    Args:
        kind: of the prediction.
        rows: in the batch.
        values: of each row, for kinds of values.
    """
    generator = torch.Generator().manual_seed(3)
    shapes = {
        OutputKind.MULTICLASS: (rows,),
        OutputKind.BINARY: (rows,),
        OutputKind.MULTILABEL: (rows, CLASSES),
        OutputKind.REGRESSION: (rows,) if values == 1 else (rows, values),
        OutputKind.GAUSSIAN: (rows,) if values == 1 else (rows, values),
        OutputKind.SEGMENTATION: (rows, 6, 6),
        OutputKind.SEQUENCE: (rows, 5),
    }
    shape = shapes[kind]
    if kind in OF_VALUES:
        target = torch.randn(shape, generator=generator)
    elif kind in (OutputKind.BINARY, OutputKind.MULTILABEL):
        target = torch.randint(0, 2, shape, generator=generator).float()
    else:
        target = torch.randint(0, CLASSES, shape, generator=generator)
    if kind is OutputKind.SEQUENCE:
        target[0, -1] = SEQUENCE_IGNORE
    outputs = {OutputKind.BINARY: 1, OutputKind.REGRESSION: values, OutputKind.GAUSSIAN: 2 * values}.get(kind, CLASSES)
    return outputs, {"target": target, "index": torch.arange(rows)}


def plan_metric(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``metrics`` and ``edges``."""
    where, spec = label(component), component.spec
    assert isinstance(spec, MetricSpec)
    widths: dict[OutputKind, int] = {}

    def metric() -> Callable[[Tensor, Batch], float]:
        bench.require(component, "target", "shape", "options")
        made: Callable[[Tensor, Batch], float] = component.load()(**bench.component_options(component))
        return made

    def known() -> str:
        measure = metric()
        for kind in map(OutputKind, spec.kinds):
            widths[kind] = 1
            try:
                _measure(measure, spec, kind, 1)
            except PluginError:
                raise
            except Exception:
                if kind not in OF_VALUES:
                    raise
                with contextlib.suppress(Exception):  # it may be about several values of a row, such as their peak
                    _measure(measure, spec, kind, SEVERAL)
                    widths[kind] = SEVERAL
                if widths[kind] == 1:
                    raise
        return ", ".join(f"{kind}{_several(width)}" for kind, width in widths.items())

    def edges() -> None:
        bench.require(component, "metrics")
        measure = metric()
        for kind in map(OutputKind, spec.kinds):
            outputs, rows = example(kind, values=widths[kind])
            guess = perfect(kind, outputs, rows["target"])
            edge_cases(measure, guess, rows, kind=kind, who="the metric", where=spec.target)

    yield Planned(id=f"metrics[{where}]", verify=known)
    yield Planned(id=f"edges[{where}]", verify=edges)


def _measure(measure: Callable[[Tensor, Batch], float], spec: MetricSpec, kind: OutputKind, values: int) -> None:
    """A perfect and a wrong prediction, of so many values a row."""
    outputs, rows = example(kind, values=values)
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


def _several(values: int) -> str:
    return "" if values == 1 else " (several values a row)"


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
        return ", ".join(f"{kind}{_several(_of_kind(objective, spec, kind))}" for kind in map(OutputKind, spec.kinds))

    yield Planned(id=f"loss[{where}]", verify=loss)


def _of_kind(objective: Any, spec: ObjectiveSpec, kind: OutputKind) -> int:
    """Try predictions of one value a row, and of several where these do not do: a loss may be about the steps from each
    value to the next. How many values it took."""

    def tried(values: int) -> None:
        outputs, rows = example(kind, rows=6, values=values)
        shape = expected_shape(kind, outputs, rows["target"])
        extras = {name: rows[name] for name in spec.extras if name in rows}
        _objective(objective, shape, extras, spec, f"for {kind} predictions {list(shape)}")

    try:
        tried(1)
    except Exception:
        if kind not in OF_VALUES:
            raise
        with contextlib.suppress(Exception):
            tried(SEVERAL)
            return SEVERAL
        raise
    return 1


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
