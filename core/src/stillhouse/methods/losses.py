"""From the soft terms of a recipe to a loss that fits one student and one teacher: adapters, and a first try of every
term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from stillhouse.errors import IncompatibleError
from stillhouse.forwarding import to_device
from stillhouse.kinds import OutputKind
from stillhouse.objectives.adapters import make_adapter
from stillhouse.recipe.resolved import BoundTerm
from stillhouse.taps import Taps, tap_shapes
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation
from stillhouse.training.loss import Term
from stillhouse.types import Batch, Splits

OPTIONAL_EXTRAS = ("mask",)
"""Extras of an objective that a batch need not have."""


def make_terms(
    bound: Sequence[BoundTerm], splits: Splits, student: Trained, teacher: Trained | None, device: torch.device
) -> list[Term]:
    """The soft terms, with adapters where tapped shapes differ.

    Args:
        bound: the recipe's terms.
        splits: the rows; two of the training rows show the shapes.
        student: the network that learns.
        teacher: the network to tap; None where only predictions can be compared.
        device: where the teacher stays.

    Raises:
        IncompatibleError: a tap does not exist, an estimator is tapped, or no adapter joins the two shapes.
    """
    batch = splits.train.batch([0, 1])
    # A mask among the inputs says which positions are padding; a term that compares rows has no use for it.
    padding = "mask" in splits.info.inputs
    terms: list[Term] = []
    for position, each in enumerate(bound):
        objective: nn.Module = each.bound.component.load()(**each.bound.options)
        prepare: Any = getattr(objective, "prepare", None)
        if prepare is not None:
            try:
                prepare(splits.info, splits.train)
            except ValueError as error:
                raise IncompatibleError(
                    str(error),
                    where=f"objectives.soft.{position}",
                    fix="change its options, or choose another objective",
                ) from error
        adapter = None
        positions = student.task.kind is OutputKind.SEQUENCE
        if each.student is not None and each.teacher is not None:
            if teacher is None or not teacher.is_network:
                raise IncompatibleError(
                    "a teacher that is not a network has no modules to tap",
                    where=f"objectives.soft.{position}",
                    fix="use a network as teacher",
                )
            _named_tap(teacher, each.teacher, f"objectives.soft.{position}, teacher")
            student_shape = _tap_shape(student, batch, each.student)
            teacher_shape = _tap_shape(teacher, batch, each.teacher)
            teacher.model.to(device)
            positions = len(teacher_shape) > 1
            if each.spec.adapts and student_shape != teacher_shape:
                try:
                    adapter = make_adapter(student_shape, teacher_shape)
                except ValueError as error:
                    raise IncompatibleError(
                        str(error),
                        where=f"objectives.soft.{position}",
                        fix="tap modules of like shapes",
                    ) from error
        name = each.bound.id if each.bound.id not in [term.name for term in terms] else f"{each.bound.id} ({position})"
        terms.append(
            Term(
                name=name,
                objective=objective,
                weight=each.weight,
                student=each.student,
                teacher=each.teacher,
                extras=tuple(name for name in each.spec.extras if name != "mask" or positions or not padding),
                scheduled=each.scheduled,
                adapter=adapter,
                gather=each.gather,
            )
        )
    return terms


def check_taps(student: Trained, bound: Sequence[BoundTerm]) -> None:
    """Whether the student has the modules that soft terms name, before the teacher is trained.

    Raises:
        IncompatibleError: it does not; with the term and the modules that there are.
    """
    for position, term in enumerate(bound):
        if term.student is not None and student.is_network:
            _named_tap(student, term.student, f"objectives.soft.{position}, student")


def check_teacher_taps(teacher: Trained, bound: Sequence[BoundTerm]) -> None:
    """Whether the teacher has the modules that soft terms name, before it is trained.

    Raises:
        IncompatibleError: it does not, or it is no network.
    """
    for position, term in enumerate(bound):
        if term.teacher is None:
            continue
        if not teacher.is_network:
            raise IncompatibleError(
                "a teacher that is not a network has no modules to tap",
                where=f"objectives.soft.{position}",
                fix="use a network as teacher",
            )
        _named_tap(teacher, term.teacher, f"objectives.soft.{position}, teacher")


def _named_tap(trained: Trained, path: str, where: str) -> None:
    try:
        Taps(trained.model, [path])
    except IncompatibleError as error:
        what = f"'{trained.component.id}' has no module '{path}'"
        raise IncompatibleError(what, where=where, fix=error.fix) from error


def _tap_shape(trained: Trained, batch: Batch, path: str) -> tuple[int, ...]:
    return tap_shapes(trained.model.cpu(), {name: batch[name] for name in trained.inputs}, [path])[path]


def try_loss(learner: Distillation, splits: Splits, device: torch.device) -> None:
    """Every term once on two rows before the first step, so that what does not fit is named.

    Raises:
        IncompatibleError: shapes that do not fit, or an extra that the rows do not have.
    """
    batch = to_device(splits.train.batch([0, 1]), device)
    learner.to(device).eval()
    with torch.random.fork_rng(), torch.no_grad():
        student, teacher = learner.outputs(batch), learner.teacher(batch)
        if student.prediction.shape[1:] != teacher.prediction.shape[1:]:
            raise IncompatibleError(
                f"the student predicts {tuple(student.prediction.shape[1:])}, the teacher "
                f"{tuple(teacher.prediction.shape[1:])} per row",
                where="student",
                fix="both must follow task.outputs",
            )
        for term in learner.loss.terms:
            missing = [name for name in term.extras if name not in batch and name not in OPTIONAL_EXTRAS]
            if missing:
                raise IncompatibleError(
                    f"objective '{term.name}' wants '{missing[0]}', which the rows do not have",
                    where=f"entries of a row: {', '.join(sorted(batch))}",
                    fix="choose a dataset that gives it, or another objective",
                )
            try:
                term(student, teacher, batch, 2)
            except (RuntimeError, ValueError, IndexError) as error:
                raise IncompatibleError(
                    f"objective '{term.name}' does not fit these shapes: {error}",
                    where=f"student '{term.student or 'prediction'}', teacher '{term.teacher or 'prediction'}'",
                    fix="tap other modules, or use an objective that adapts shapes such as core/hints",
                ) from error


def idle_term(history: Sequence[dict[str, Any]]) -> tuple[str, int] | None:
    """The first soft term that was under 1 % of the loss for a whole epoch, and that epoch; None when there is none."""
    for record in history:
        values = record["train"]["terms"]
        total = sum(abs(pair["weighted"]) for pair in values.values())
        for name, pair in values.items():
            if name != "hard" and total > 0 and abs(pair["weighted"]) < 0.01 * total:
                return name, record["epoch"] + 1
    return None
