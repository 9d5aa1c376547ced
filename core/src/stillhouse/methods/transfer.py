"""What a model that meets one task after the other forgets, and what it carries over: functions of its accuracies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
