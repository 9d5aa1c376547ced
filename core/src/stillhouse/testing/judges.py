"""Checks of what judges a prediction: heads, extra metrics, and objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, PluginError, StillhouseError
from stillhouse.kinds import SEGMENTATION_IGNORE, SEQUENCE_IGNORE, OutputKind
from stillhouse.plugins.checks import Planned, Skipped, label
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import HeadSpec, MetricSpec, ObjectiveSpec
from stillhouse.testing.models import expected_shape
from stillhouse.testing.rows import few
from stillhouse.testing.workbench import Workbench
from stillhouse.types import Batch, Head, Splits

ROWS = 2000
"""Rows of the test split that metrics are computed on."""
CLASSES = 3


def plan_head(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``loss``, ``metrics``, ``edges`` and ``decode``."""
    head = _Heads(bench, component)
    where = label(component)
    yield Planned(id=f"loss[{where}]", verify=head.loss)
    yield Planned(id=f"metrics[{where}]", verify=head.metrics)
    yield Planned(id=f"edges[{where}]", verify=head.edges)
    yield Planned(id=f"decode[{where}]", verify=head.decode)


def perfect(kind: OutputKind, outputs: int, target: Tensor) -> Tensor:
    """The prediction that a target asks for."""
    if kind in (OutputKind.REGRESSION, OutputKind.GAUSSIAN):
        values = target.reshape(len(target), -1).float()
        return torch.cat([values, torch.full_like(values, -4.0)], dim=1) if kind is OutputKind.GAUSSIAN else values
    if kind in (OutputKind.BINARY, OutputKind.MULTILABEL):
        return 12.0 * (2 * target.reshape(len(target), -1).float() - 1)
    if target.is_floating_point():  # a distribution over classes
        return target.clamp_min(1e-5).log()
    ignored = (target == SEGMENTATION_IGNORE) | (target < 0)
    logits = 12.0 * nn.functional.one_hot(target.long().masked_fill(ignored, 0), outputs).float()
    return logits.movedim(-1, 1).contiguous() if kind is OutputKind.SEGMENTATION else logits


def wrong(kind: OutputKind, outputs: int, target: Tensor) -> Tensor:
    """A prediction that is as far from the target as it can sensibly be."""
    if kind in (OutputKind.REGRESSION, OutputKind.GAUSSIAN):
        spread = float(target.float().std()) if target.numel() > 1 else 0.0
        return perfect(kind, outputs, target.float() + 3 * (spread or 1.0))
    if kind in (OutputKind.BINARY, OutputKind.MULTILABEL):
        return -perfect(kind, outputs, target)
    right = perfect(kind, outputs, target)
    return right.roll(1, dims=1 if kind is OutputKind.SEGMENTATION else -1)


class _Heads:
    def __init__(self, bench: Workbench, component: Component) -> None:
        self._bench, self._component = bench, component
        self._found: tuple[Splits, Head] | None = None
        spec = component.spec
        assert isinstance(spec, HeadSpec)
        self._spec = spec

    def _make(self) -> tuple[Splits, Head]:
        if self._found is not None:
            return self._found
        self._bench.require(self._component, "target", "shape", "options")
        first: Exception | None = None
        for setting in self._bench.settings(self._component):
            try:
                splits, head = self._bench.head(setting)
                missing = set(head.row_entries()) - set(splits.test.row(0))
                if missing and not setting.own:
                    raise Skipped(f"no dataset that works offline has the entries {sorted(missing)}, which it reads")
            except Exception as error:
                if setting.own:
                    raise
                first = first or error
            else:
                self._found = splits, head
                return self._found
        if first is not None:
            raise first
        raise Skipped("no dataset that works offline has targets of its kind", "bring a small embedded dataset")

    def _rows(self) -> tuple[Head, Batch]:
        splits, head = self._make()
        entries = ["target", "index", *head.row_entries()]
        rows = few(splits.test, ROWS)
        return head, rows.columns(entries)

    def loss(self) -> str:
        splits, head = self._make()
        spec = self._spec
        if (head.kind, head.primary, head.higher_is_better) != (spec.output, spec.primary, spec.higher_is_better):
            raise IncompatibleError(
                f"the head has kind={head.kind}, primary={head.primary}, higher_is_better={head.higher_is_better}; "
                f"its spec says {spec.output}, {spec.primary}, {spec.higher_is_better}",
                where=spec.target,
                fix="make HeadSpec and the class agree",
            )
        rows = few(splits.train, 6)
        whole = rows.batch(range(len(rows)))
        for count in (len(rows), 1):
            batch = {name: entry[:count] for name, entry in whole.items()}
            shape = expected_shape(head.kind, head.outputs, batch["target"])
            prediction = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
            loss = head.hard_loss(prediction, batch)
            _scalar(loss, f"hard_loss of {count} rows", spec.target)
            if not loss.requires_grad:
                raise PluginError(
                    "no gradient flows from hard_loss to the prediction",
                    where=spec.target,
                    fix="compute it from the prediction with differentiable operations, without detach() or item()",
                )
        return f"on {splits.info.description or 'rows'}"

    def metrics(self) -> str:
        self._bench.require(self._component, "loss")
        head, rows = self._rows()
        best, worst = (
            self._evaluate(head, make(head.kind, head.outputs, rows["target"]), rows) for make in (perfect, wrong)
        )
        for found, name in ((best, "perfect"), (worst, "wrong")):
            _figures(found, head.primary, f"evaluate() of a {name} prediction", self._spec.target)
        good, bad = best[head.primary], worst[head.primary]
        if (good <= bad) if head.higher_is_better else (good >= bad):
            raise PluginError(
                f"'{head.primary}' of a perfect prediction is {good:.4g}, and of a wrong one {bad:.4g}",
                where=self._spec.target,
                fix="correct the metric, or higher_is_better",
            )
        return f"{head.primary} {bad:.4g} to {good:.4g}"

    def _evaluate(self, head: Head, prediction: Tensor, rows: Batch) -> dict[str, float]:
        return head.evaluate(prediction.clone(), {name: entry.clone() for name, entry in rows.items()})

    def edges(self) -> None:
        self._bench.require(self._component, "metrics")
        head, rows = self._rows()
        prediction = perfect(head.kind, head.outputs, rows["target"])
        edge_cases(
            lambda guess, these: self._evaluate(head, guess, these),
            prediction,
            rows,
            kind=head.kind,
            who="evaluate()",
            where=self._spec.target,
        )

    def decode(self) -> str:
        self._bench.require(self._component, "loss")
        head, rows = self._rows()
        prediction = perfect(head.kind, head.outputs, rows["target"][:5])
        columns = head.decode(prediction)
        lengths = {name: len(column) for name, column in columns.items()}
        if not columns or set(lengths.values()) != {len(prediction)}:
            raise PluginError(
                f"decode() of {len(prediction)} rows gave columns of lengths {lengths}",
                where=self._spec.target,
                fix="return a dict of lists with one item per row",
            )
        plain = (str, int, float, bool, list, type(None))
        odd = [name for name, column in columns.items() if not all(type(item) in plain for item in column)]
        if odd:
            raise PluginError(
                f"decode() gave items of column '{odd[0]}' that are not plain values",
                where=self._spec.target,
                fix="use .tolist(): strings, numbers, booleans or lists of them",
            )
        return ", ".join(columns)


def _scalar(loss: Tensor, what: str, where: str) -> None:
    if not isinstance(loss, Tensor) or loss.ndim != 0 or not bool(torch.isfinite(loss)):
        shown = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) and loss.ndim else repr(loss)
        raise PluginError(
            f"{what} is {shown}, not a finite scalar tensor", where=where, fix="return the mean over rows as a scalar"
        )


def _figures(found: Any, primary: str, what: str, where: str) -> None:
    if not isinstance(found, Mapping) or primary not in found:
        raise PluginError(
            f"{what} gave {sorted(found) if isinstance(found, Mapping) else repr(found)}, without '{primary}'",
            where=where,
            fix=f"return a dict of floats with the primary metric '{primary}'",
        )
    for name, value in found.items():
        if type(value) not in (float, int) or not math.isfinite(value):
            raise PluginError(
                f"{what} gave {name} = {value!r}",
                where=where,
                fix="return finite floats; leave a metric out where it is not defined",
            )


def edge_cases(
    evaluate: Callable[[Tensor, Batch], Any], prediction: Tensor, rows: Batch, *, kind: OutputKind, who: str, where: str
) -> None:
    """One class (or value) only: finite figures or an error that says so; no rows and NaN: an error.

    Raises:
        PluginError: NaN or another exception came out, or no error where there had to be one.
    """
    constant = _one_value(rows, kind)
    if constant is not None:
        kept, these = constant
        found = _attempt(evaluate, prediction[kept], these, f"{who} of rows of one class or value", where)
        if found is not None:
            values = found if isinstance(found, Mapping) else {"the metric": found}
            for name, value in values.items():
                if not math.isfinite(float(value)):
                    raise PluginError(
                        f"{who} of rows of one class or value gave {name} = {value!r}",
                        where=where,
                        fix="leave the metric out, or raise DataError: 'only one class'",
                    )
    nan = prediction.clone()
    nan[0] = float("nan")
    for what, guess, these in (
        ("a prediction with NaN", nan, rows),
        ("no rows", prediction[:0], {name: entry[:0] for name, entry in rows.items()}),
    ):
        found = _attempt(evaluate, guess, these, f"{who} of {what}", where)
        if found is not None:
            raise PluginError(
                f"{who} of {what} gave {found!r} instead of an error",
                where=where,
                fix="call stillhouse.heads.checks.judged(prediction, rows, head=...) first, which refuses both",
            )


def _attempt(evaluate: Callable[[Tensor, Batch], Any], guess: Tensor, rows: Batch, what: str, where: str) -> Any:
    """The figures, or None when they are refused with an error for users."""
    try:
        return evaluate(guess.clone(), {name: entry.clone() for name, entry in rows.items()})
    except StillhouseError:
        return None
    except Exception as error:
        raise PluginError(
            f"{what} raised {type(error).__name__}: {error}",
            where=where,
            fix="raise DataError or TrainingError from stillhouse.errors, which tell users what to do",
        ) from error


def _one_value(rows: Batch, kind: OutputKind) -> tuple[Tensor, Batch] | None:
    target = rows["target"]
    if target.ndim > 1 and kind is not OutputKind.REGRESSION:
        return None
    first = target.reshape(len(target), -1)
    same = (first == first[:1]).all(dim=1)
    if kind in (OutputKind.REGRESSION, OutputKind.GAUSSIAN):
        kept = torch.arange(min(len(target), 4))
        these = {name: entry[kept] for name, entry in rows.items()}
        return kept, these | {"target": target[:1].expand_as(these["target"])}
    kept = torch.nonzero(same).flatten()
    return kept, {name: entry[kept] for name, entry in rows.items()}


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
        measure, told = metric(), []
        for kind in map(OutputKind, spec.kinds):
            outputs, rows = example(kind)
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
            told.append(str(kind))
        return ", ".join(told)

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
        if spec.level == "feature":
            return _feature_loss(objective, spec)
        for kind in map(OutputKind, spec.kinds):
            outputs, rows = example(kind, rows=6)
            shape = expected_shape(kind, outputs, rows["target"])
            extras = {name: rows[name] for name in spec.extras if name in rows}
            _objective(objective, shape, extras, spec, f"for {kind} predictions")
        return ", ".join(map(str, spec.kinds))

    yield Planned(id=f"loss[{where}]", verify=loss)


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
    student = torch.randn(shape, generator=generator).requires_grad_()
    teacher = torch.randn(shape, generator=generator).requires_grad_()
    loss = objective(student, teacher, **extras)
    _scalar(loss, f"the loss {what}", spec.target)
    (gradient,) = torch.autograd.grad(loss, student, allow_unused=True) if loss.requires_grad else (None,)
    if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
        raise PluginError(
            f"{what} no finite gradient reaches the student",
            where=spec.target,
            fix="compute the loss from the student's tensor with differentiable operations",
        )
    if not spec.extras:
        same = float(objective(teacher.detach().clone(), teacher.detach()))
        other = float(loss.detach())
        if same > other:
            raise PluginError(
                f"{what} the loss of a student that equals the teacher is {same:.4g}, of another {other:.4g}",
                where=spec.target,
                fix="a distillation loss is smallest where student and teacher agree",
            )
