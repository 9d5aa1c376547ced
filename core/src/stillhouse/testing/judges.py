"""Checks of heads, and what a prediction is that is judged: perfect, wrong, or at the edge."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, PluginError, StillhouseError
from stillhouse.kinds import SEGMENTATION_IGNORE, OutputKind
from stillhouse.plugins.checks import Planned, Skipped, label
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import HeadSpec
from stillhouse.testing.models import expected_shape
from stillhouse.testing.rows import few
from stillhouse.testing.workbench import Workbench
from stillhouse.types import Batch, Head, Splits

ROWS = 2000
"""Rows of the test split that metrics are computed on."""


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
        if kind is OutputKind.GAUSSIAN:
            return torch.cat([values, torch.full_like(values, -4.0)], dim=1)
        # Several values of one target are its quantiles, and of what is certain all are the same.
        return values.expand(-1, outputs) if values.shape[1] == 1 else values
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
            refuse_broadcasting(head.hard_loss, prediction.detach(), batch, "hard_loss", spec.target)
            loss = head.hard_loss(prediction, batch)
            check_scalar(loss, f"hard_loss of {count} rows", spec.target)
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
        some = {name: entry[:24] for name, entry in rows.items()}
        guess = wrong(head.kind, head.outputs, some["target"])
        refuse_broadcasting(
            lambda prediction, these: self._evaluate(head, prediction, these)[head.primary],
            guess,
            some,
            f"evaluate(), in '{head.primary}',",
            self._spec.target,
        )
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


def refuse_broadcasting(
    measure: Callable[[Tensor, Batch], Any], prediction: Tensor, rows: Batch, who: str, where: str
) -> None:
    """A prediction ``[N, 1]`` and a target ``[N]`` make ``[N, N]`` when one is subtracted from the other: it is all
    pairs that are compared then, and no error. Told by the value, which is another one for a prediction ``[N]``.

    Raises:
        PluginError: it is.
    """
    target = rows["target"]
    if target.ndim != 1 or prediction.shape != (len(target), 1) or len(target) < 2:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own of other sizes
            plain = float(measure(prediction.clone(), dict(rows)))
            alike = float(measure(prediction[:, 0].clone(), dict(rows)))
    except Exception:
        return  # it takes predictions of two dimensions only, so that it has not mixed them up
    if not math.isclose(plain, alike, rel_tol=1e-4, abs_tol=1e-6):
        raise PluginError(
            f"{who} broadcasts: it compares the prediction [N, 1] with the target [N], which makes [N, N], all rows "
            f"with all others ({plain:.4g}; row by row {alike:.4g})",
            where=where,
            fix="flatten first: prediction = prediction.squeeze(1)",
        )


def check_scalar(loss: Tensor, what: str, where: str) -> None:
    """A loss is a finite scalar.

    Raises:
        PluginError: it is not.
    """
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
    """One class (or value) only: finite values or an error that says so; no rows and NaN: an error.

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
                fix="from stillhouse.heads.checks import judged, and begin with judged(prediction, rows, head=NAME), "
                "which raises for NaN and for no rows",
            )


def _attempt(evaluate: Callable[[Tensor, Batch], Any], guess: Tensor, rows: Batch, what: str, where: str) -> Any:
    """The metrics, or None when they are refused with an error for users."""
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
