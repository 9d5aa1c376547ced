"""Distillation for people with a loop or data of their own: one step, and a small complete training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import TrainingError
from stillhouse.forwarding import predict, to_device
from stillhouse.taps import Taps
from stillhouse.teachers import LiveTeacher, TeacherSource
from stillhouse.training.finite import FiniteGuard
from stillhouse.training.loss import DistillationLoss, HardLoss, Term
from stillhouse.types import Batch, Outputs


def distillation_step(
    teacher: TeacherSource, loss: DistillationLoss, taps: Taps, inputs: Sequence[str]
) -> Callable[[nn.Module, Batch, int], tuple[Tensor, dict[str, dict[str, Tensor]]]]:
    """The loss of one step: student forward (through whatever wraps it), teacher's word, equation (2).

    Args:
        teacher: where the teacher's signal comes from.
        loss: the weighted sum.
        taps: open taps on the student.
        inputs: batch entries that the student is called with.
    """

    def step(model: nn.Module, batch: Batch, labelled: int) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        taps.clear()
        prediction = predict(model, batch, inputs)
        total, values = loss(Outputs(prediction, taps.take()), teacher(batch), batch, labelled)
        return total, values

    return step


def distill(
    student: nn.Module,
    teacher: nn.Module | TeacherSource,
    batches: Iterable[Batch],
    objectives: Sequence[Term | nn.Module],
    *,
    hard_loss: HardLoss | None = None,
    alpha: Any = 0.5,
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
        IncompatibleError: a tap does not exist.
        ValueError: alpha is not 0 and there is no hard loss.
    """
    if hard_loss is None and alpha != 0:
        raise ValueError("without hard_loss only the soft terms can count: give alpha=0")
    where = torch.device(device)
    terms = [each if isinstance(each, Term) else Term(name=type(each).__name__, objective=each) for each in objectives]
    loss = DistillationLoss(hard_loss, terms, alpha).to(where)
    student.to(where)
    source: TeacherSource
    if isinstance(teacher, nn.Module):
        source = LiveTeacher(teacher.to(where), inputs=inputs, taps=loss.teacher_taps)
    else:
        source = teacher
    torch.manual_seed(seed)
    optimizer = optimizer or torch.optim.AdamW([*student.parameters(), *loss.parameters()], lr=lr)
    history = []
    with Taps(student, loss.student_taps) as taps:
        step = distillation_step(source, loss, taps, inputs)
        for epoch in range(epochs):
            loss.set_progress(epoch / max(epochs - 1, 1))
            student.train()
            sums: dict[str, Tensor] = {}
            count = 0
            guard = FiniteGuard("the loss", epoch, fix="lower lr", teacher=source)
            for given in batches:
                batch = to_device(given, where)
                total, values = step(student, batch, len(batch[inputs[0]]))
                optimizer.zero_grad(set_to_none=True)
                total.backward()  # type: ignore[no-untyped-call]
                guard.watch(total, given, gradients=(*student.parameters(), *loss.parameters()))
                optimizer.step()
                count += 1
                for name, value in (
                    ("loss", total.detach()),
                    *((name, pair["raw"]) for name, pair in values.items()),
                ):
                    sums[name] = sums.get(name, torch.zeros((), device=where)) + value
            guard.check()
            if not count:
                raise TrainingError(
                    "there are no batches",
                    where=f"distill, epoch {epoch + 1}",
                    fix="give a list or a loader, not an iterator that is used up after one epoch",
                )
            means = {name: float(value) / count for name, value in sums.items()}
            history.append(means)
            if on_epoch is not None:
                on_epoch(epoch, means)
    if isinstance(source, LiveTeacher):
        source.assert_unchanged()
    student.eval()
    return history
