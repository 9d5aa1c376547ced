"""What a model that meets one task after the other forgets, and what it carries over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stillhouse.kinds import OutputKind
from stillhouse.methods.arrivals import Arrivals
from stillhouse.methods.context import MethodContext
from stillhouse.teachers import StoredTeacher, TeacherSource
from stillhouse.trained import Trained


def transfer(accuracy: Sequence[Sequence[float]], before: Sequence[float]) -> dict[str, float]:
    """Mean accuracy, transfer and forgetting of a sequence of T tasks.

    With ``R_ij`` the accuracy on task j after learning task i, and ``b_j`` that of the initial weights::

        mean_accuracy     = 1/T * sum_j R_Tj                                      (equation 2)
        backward_transfer = 1/(T - 1) * sum_(j < T) (R_Tj - R_jj)                 (equation 3)
        forward_transfer  = 1/(T - 1) * sum_(j > 1) (R_(j-1)j - b_j)              (equation 4)
        forgetting        = 1/(T - 1) * sum_(j < T) (max_(j <= i < T) R_ij - R_Tj)

    Sources: Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning" (2017), equations 2 to 4;
    forgetting: Chaudhry, Dokania, Ajanthan, Torr, "Riemannian Walk for Incremental Learning" (2018).

    Args:
        accuracy: ``R``, ``[T, T]``, a row after each task.
        before: ``b``, ``[T]``.

    Returns:
        the four by name; without the last three when there is one task only.
    """
    table, initial, tasks = np.asarray(accuracy, dtype=float), np.asarray(before, dtype=float), len(before)
    found = {"mean_accuracy": float(table[-1].mean())}
    if tasks > 1:
        last, own = table[-1, :-1], np.diag(table)[:-1]
        best = np.array([table[task:-1, task].max() for task in range(tasks - 1)])
        found["backward_transfer"] = float((last - own).mean())
        found["forward_transfer"] = float((np.diag(table, k=1) - initial[1:]).mean())
        found["forgetting"] = float((best - last).mean())
    return found


class Tasks:
    """Accuracy on the validation rows of every task after every task: those of the warm chunks are the first task, and
    each later chunk is one.

    Args:
        context: what the framework gives.
        arrivals: the chunks, one a class.
    """

    def __init__(self, context: MethodContext, arrivals: Arrivals) -> None:
        self._context = context
        target = context.splits.train.columns(["target"])["target"].flatten().long()
        groups = [arrivals.rows(0, arrivals.warm), *arrivals.chunks[arrivals.warm :]]
        self._classes = [torch.unique(target[group]) for group in groups]
        self._target = context.splits.val.columns(["target"])["target"].flatten().long()
        self._before: list[float] = []
        self._table: dict[str, list[list[float]]] = {}

    def begin(self, student: Trained) -> None:
        """Judge the initial weights."""
        if student.is_network:
            student.model.to(self._context.device)
        self._before = self._accuracies(student)

    def judge(self, name: str, model: Trained | TeacherSource) -> None:
        """Judge a model after a task."""
        self._table.setdefault(name, []).append(self._accuracies(model))

    def _accuracies(self, model: Trained | TeacherSource) -> list[float]:
        context = self._context
        if isinstance(model, Trained):
            prediction = model.predict(context.splits.val, context.device)
        else:
            stored = StoredTeacher.of(model, [context.splits.val], context.device)
            prediction = stored({"index": context.splits.val.index()}).prediction.cpu()
        binary = context.head.kind is OutputKind.BINARY
        right = ((prediction[:, 0] >= 0).long() if binary else prediction.argmax(1)) == self._target
        found = []
        for classes in self._classes:
            chosen = torch.isin(self._target, classes)
            found.append(float(right[chosen].double().mean()) if bool(chosen.any()) else 0.0)
        return found

    def facts(self) -> dict[str, Any]:
        """Transfer and forgetting of each model, and its mean accuracy on the tasks so far after each of them."""
        found: dict[str, Any] = {}
        for name, table in self._table.items():
            for measure, value in transfer(table, self._before).items():
                found.setdefault(measure, {})[name] = value
        names = self._context.splits.info.classes
        classes = [[str(names[c] if names else c) for c in each.tolist()] for each in self._classes]
        return {
            **found,
            "accuracy_of_tasks": {**self._table, "classes": classes},
            "over_time": {
                "measure": "mean accuracy on the classes so far",
                "chunk": list(range(1, len(classes) + 1)),
                "time": None,
                **{
                    name: [sum(row[: at + 1]) / (at + 1) for at, row in enumerate(table)]
                    for name, table in self._table.items()
                },
            },
        }
