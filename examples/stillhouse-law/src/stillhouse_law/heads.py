"""Head for judgment prediction."""

from __future__ import annotations

from stillhouse.heads import Multiclass
from stillhouse.types import Batch
from torch import Tensor


class Outcome(Multiclass):
    """Outcome of a case, one of several, judged by macro F1: the rare outcomes count as much as the frequent ones.

    Metrics: those of `stillhouse.heads.Multiclass`, and ``recall_<outcome>`` of every outcome that occurs.
    """

    primary = "macro_f1"

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class."""
        found = super().evaluate(prediction, rows)
        target = rows["target"].long()
        right = (prediction.argmax(dim=1) == target).double()
        names = {label: self.classes[label].replace(" ", "_") for label in target.unique().tolist()}
        return found | {f"recall_{name}": float(right[target == label].mean()) for label, name in names.items()}
