"""Distillation for people with a loop or data of their own: a small complete training without recipe or run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from stillhouse.errors import IncompatibleError, TrainingError
from stillhouse.forwarding import to_device
from stillhouse.teachers import LiveTeacher, TeacherSource
from stillhouse.training.finite import FiniteGuard
from stillhouse.training.learner import Distillation
from stillhouse.training.loop import train_epoch
from stillhouse.training.loss import DistillationLoss, HardLoss, Term
from stillhouse.types import Batch


def distill(
    student: nn.Module,
    teacher: nn.Module | TeacherSource,
    batches: Iterable[Batch],
    objectives: Sequence[Term | nn.Module],
    *,
    hard_loss: HardLoss | None = None,
    alpha: Any = 0.3,
    inputs: Sequence[str],
    epochs: int = 1,
    optimizer: torch.optim.Optimizer | None = None,
    lr: float = 1e-3,
    device: torch.device | str = "cpu",
    seed: int = 0,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train ``student`` in place from ``teacher``, without recipe, head or run folder.

    Args:
        student: the network to train; left in eval mode.
        teacher: a network (frozen and put into eval mode) or any teacher source.
        batches: gone through once per epoch; each is a dict with the ``inputs``, ``index`` where the teacher is
            cached, and ``target`` where there is a hard loss.
        objectives: soft terms; a bare objective compares predictions with weight 1.
        hard_loss: mean loss of a prediction against the batch; without it ``alpha`` must be 0.
        alpha: share of the hard loss, a number or a schedule.
        inputs: batch entries that student and teacher are called with.
        epochs: passes over ``batches``.
        optimizer: AdamW over the student and its adapters by default; one of your own must hold what is to learn.
        lr: learning rate of the default optimiser.
        device: where to train.
        seed: seed of dropout and the like.
        on_epoch: called after each epoch with its number and mean loss values.

    Returns:
        mean loss, and raw value of each term, per epoch.

    Raises:
        TrainingError: the loss is not finite, there are no batches, or the teacher changed.
        IncompatibleError: a tap does not exist, or a batch lacks one of the inputs.
        ValueError: alpha is not 0 and there is no hard loss, or there are no epochs.
    """
    if hard_loss is None and alpha != 0:
        raise ValueError("without hard_loss only the soft terms can count: give alpha=0")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    where = torch.device(device)
    terms = [each if isinstance(each, Term) else Term(name=type(each).__name__, objective=each) for each in objectives]
    loss = DistillationLoss(hard_loss, terms, alpha)
    source: Any = teacher
    if isinstance(teacher, nn.Module):
        source = LiveTeacher(teacher.to(where), inputs=inputs, taps=loss.teacher_taps)
    torch.manual_seed(seed)
    learner = Distillation(student, inputs, loss, source).to(where)
    optimizer = optimizer or torch.optim.AdamW(learner.parameters(), lr=lr)
    history = []
    for epoch in range(epochs):
        learner.set_progress(epoch / max(epochs - 1, 1))
        guard = FiniteGuard("the loss", epoch, fix="lower lr", teacher=source)
        found = train_epoch(learner, _labelled(batches, inputs, where), optimizer, guard)
        if not found["steps"]:
            raise TrainingError(
                "there are no batches",
                where=f"distill, epoch {epoch + 1}",
                fix="give a list or a loader, not an iterator that is used up after one epoch",
            )
        means = {"loss": found["loss"], **{name: values["raw"] for name, values in found["terms"].items()}}
        history.append(means)
        if on_epoch is not None:
            on_epoch(epoch, means)
    if isinstance(source, LiveTeacher):
        source.assert_unchanged()
    student.eval()
    return history


def _labelled(batches: Iterable[Batch], inputs: Sequence[str], device: torch.device) -> Iterator[tuple[Batch, int]]:
    for batch in batches:
        if missing := [name for name in inputs if name not in batch]:
            raise IncompatibleError(
                f"a batch has no '{missing[0]}', but {', '.join(batch)}",
                where="distill, inputs",
                fix="name the entries that student and teacher are called with",
            )
        yield to_device(batch, device), len(batch[inputs[0]])
