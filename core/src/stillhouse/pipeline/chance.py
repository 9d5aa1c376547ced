"""Models at chance: no better than an answer that ignores the inputs. They are named, with what to try."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import StillhouseError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.context import RunContext
from stillhouse.storage import read_tensors
from stillhouse.types import Batch, Split

SHARE = 0.05
"""A model is at chance up to this share of the way from the constant answer to a perfect one."""
TIMES = 1.2
"""A metric so many times that of the constant answer is above chance all the same: precision on rare events is."""
LEARNT = 0.9
"""A training loss below this share of the first epoch's shows that the weights have learnt."""


def constant_answer(kind: OutputKind, outputs: int, target: Tensor, rows: int) -> Tensor | None:
    """The prediction ``[rows, outputs]`` that knows the training targets and no input: how often each class is
    (scikit-learn's ``DummyClassifier(strategy="prior")``), or the mean (``DummyRegressor``). None for kinds that have
    no such answer a row, and for outputs that are no values of the target (quantiles).

    Args:
        kind: of the prediction.
        outputs: its width.
        target: of the training rows.
        rows: how often the answer is repeated.
    """
    if kind is OutputKind.MULTICLASS:
        share = (torch.bincount(target, minlength=outputs).double() / len(target)).clamp_min(1e-6).log()
    elif kind in (OutputKind.BINARY, OutputKind.MULTILABEL):
        share = target.double().reshape(len(target), -1).mean(dim=0).clamp(1e-6, 1 - 1e-6).logit()
    elif kind is OutputKind.REGRESSION and target.numel() == len(target) * outputs:
        share = target.double().reshape(len(target), -1).mean(dim=0)
    else:
        return None
    return share.float().expand(rows, -1).clone()


def chance(context: RunContext, split: Split) -> float | None:
    """The primary metric of the constant answer on a split; None where there is none."""
    rows = context.judged_rows(split)
    target = context.splits.train.columns(["target"])["target"]
    answer = constant_answer(context.head.kind, context.head.outputs, target, len(rows["target"]))
    return None if answer is None else _primary(context, answer, rows)


def is_at_chance(value: float, constant: float, *, higher_is_better: bool) -> bool:
    """Whether a metric is hardly better than that of the constant answer; a perfect one is 1, or an error of 0."""
    if not (math.isfinite(value) and math.isfinite(constant)):
        return False
    if not higher_is_better:
        return value >= (1 - SHARE) * constant
    return value <= constant + SHARE * max(1 - constant, 0.0) and value <= TIMES * constant


def warn_of_chance(context: RunContext, name: str, folders: Sequence[Path]) -> None:
    """Warn when a model is at chance on validation, or its averaged weights were in epochs in which it had learnt.

    Args:
        context: the run.
        name: "teacher", "baseline" or "student".
        folders: of the model for each seed (of the teacher's members): predictions of validation rows, where there are
            any of its own, and the record of its epochs.
    """
    constant = chance(context, context.splits.val)
    if constant is None:
        return
    values = []
    for folder in [context.folder / name] if name == "teacher" else folders:  # members of a teacher answer together
        kept = read_tensors(folder / "predictions" / "val.safetensors")
        value = _primary(context, kept.pop("prediction"), kept)
        if value is not None:
            values.append(value)
    metric, higher = context.head.primary, context.head.higher_is_better
    mean = sum(values) / len(values) if values else math.nan
    if is_at_chance(mean, constant, higher_is_better=higher):
        context.warn(
            f"the {name} is at chance: its {metric} on validation is {mean:.4g}, and an answer that is always the same "
            f"has {constant:.4g}. {_advice(context, folders)}"
        )
    _warn_of_averages(context, name, folders, constant)


def _advice(context: RunContext, folders: Sequence[Path]) -> str:
    if context.resolved.dataset.options.get("features") == "raw":
        return (
            "It sees raw signals: a frequency, or how much a signal varies, is hard to learn from them; try "
            "dataset.features: spectrum, or statistics"
        )
    if any(_learnt(_history(folder)) for folder in folders):
        return "Its training loss fell: it overfits; try a smaller model, weight decay, or more rows"
    return "Try another learning rate, more epochs or another model; and look whether the inputs tell the target at all"


def _warn_of_averages(context: RunContext, name: str, folders: Sequence[Path], constant: float) -> None:
    train = context.resolved.recipe.train
    config = {"teacher": train.teacher, "baseline": train.of_baseline}.get(name, train.student)
    if config.ema is None:
        return
    metric, higher = context.head.primary, context.head.higher_is_better
    for folder in folders:
        epochs = _history(folder)
        behind = [
            number
            for number in range(len(epochs))
            if _learnt(epochs[: number + 1])
            and is_at_chance(epochs[number]["val"][metric], constant, higher_is_better=higher)
        ]
        if behind:
            where = "teacher" if name == "teacher" else "student"
            context.warn(
                f"the averaged weights of the {name} (train.{where}.ema: {config.ema:g}) were at chance in "
                f"{len(behind)} of {len(epochs)} epochs although its training loss had fallen: they follow too slowly; "
                f"lower train.{where}.ema, or train longer"
            )
            return


def _history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "history.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _learnt(epochs: Sequence[dict[str, Any]]) -> bool:
    return len(epochs) > 1 and epochs[-1]["train"]["loss"] < LEARNT * epochs[0]["train"]["loss"]


def _primary(context: RunContext, prediction: Tensor, rows: Batch) -> float | None:
    try:
        return float(context.head.evaluate(prediction, rows)[context.head.primary])
    except (StillhouseError, KeyError):
        return None  # a head that cannot judge a constant answer has no chance to compare with
