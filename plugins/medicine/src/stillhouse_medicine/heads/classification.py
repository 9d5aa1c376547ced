"""Classes and findings, judged as MedMNIST does (Yang et al., Scientific Data 10:41, 2023)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from stillhouse import heads
from stillhouse.errors import DataError
from stillhouse.heads.measures import binary_ece, recall, roc_auc
from stillhouse.types import Batch, DataInfo
from stillhouse_medicine.heads.task import require_task


class Multiclass(heads.Multiclass):
    """One class of several; ordinal grades too, as MedMNIST does. Logits ``[B, C]``.

    Metrics: ``auc`` (primary; mean over classes of one against the rest), ``accuracy``, ``macro_f1``, ``ece``, ``nll``.
    A class without rows in a split (or with all of them) has no AUC and is left out of the mean.

    Args:
        data: the dataset, with its class names.
        class_weights: "balanced" weighs each class by rows / (classes * rows of the class); none when left out.
        label_smoothing: probability mass spread evenly over all classes in the hard loss.

    Raises:
        DataError: fewer than two classes are declared, or there are no counts to balance by.
        IncompatibleError: the dataset's task is another one.
    """

    primary = "auc"
    bounds = (0.0, 1.0)

    def __init__(
        self,
        data: DataInfo,
        *,
        class_weights: Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        require_task(data, "multiclass")
        super().__init__(data, class_weights=class_weights, label_smoothing=label_smoothing)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class.

        Raises:
            DataError: the split is empty or has one class only, or a label is outside the declared ones.
            TrainingError: a prediction is not finite.
        """
        found = super().evaluate(prediction, rows)
        probability = prediction.double().softmax(dim=1)
        truth = functional.one_hot(rows["target"].long(), self.outputs)
        return {"auc": mean_auc(probability, truth, self.classes), **{k: v for k, v in found.items() if k != "auc"}}


class Binary(heads.Binary):
    """Yes or no, from one logit ``[B, 1]``.

    Metrics: ``auc`` (primary), ``accuracy``, ``sensitivity`` and ``specificity`` at a probability of one half,
    ``average_precision``, ``ece``, ``nll``.

    Args:
        data: the dataset, with its two class names, the positive one last.
        pos_weight: factor on the loss of positives; "balanced" is negatives / positives of the training rows.
        label_smoothing: moves the targets 0 and 1 towards one half by this share, in the hard loss only.

    Raises:
        DataError: other than two classes are declared, or there are no counts to balance by.
        IncompatibleError: the dataset's task is another one.
    """

    primary = "auc"
    bounds = (0.0, 1.0)

    def __init__(
        self,
        data: DataInfo,
        *,
        pos_weight: float | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        require_task(data, "binary")
        super().__init__(data, pos_weight=pos_weight, label_smoothing=label_smoothing)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class.

        Raises:
            DataError: the split is empty or has one class only, or a label is neither 0 nor 1.
            TrainingError: a prediction is not finite.
        """
        found = super().evaluate(prediction, rows)
        truth = rows["target"].reshape(-1).long()
        # The positive class is chosen above one half, and not at it, as MedMNIST does.
        choice = (prediction[:, 0] > 0).long()
        found_by_class = recall(choice, truth, 2)
        return {
            "auc": found["roc_auc"],
            "accuracy": float((choice == truth).double().mean()),
            "sensitivity": float(found_by_class[1]),
            "specificity": float(found_by_class[0]),
            **{name: found[name] for name in ("average_precision", "ece", "nll")},
        }


class Multilabel(heads.Multilabel):
    """Any number of findings at once; logits ``[B, L]``.

    Metrics: ``auc`` (primary; mean over labels), ``accuracy`` (mean over labels at a probability of one half), ``map``,
    ``ece`` (all labels pooled). A label without positives (or negatives) in a split has no AUC and is left out.

    Args:
        data: the dataset, with its label names.
        pos_weight: factor on the loss of positives, the same for every label.
        label_smoothing: moves the targets 0 and 1 towards one half by this share, in the hard loss only.

    Raises:
        DataError: no labels are declared.
        IncompatibleError: the dataset's task is another one.
    """

    primary = "auc"
    bounds = (0.0, 1.0)

    def __init__(self, data: DataInfo, *, pos_weight: float | None = None, label_smoothing: float = 0.0) -> None:
        require_task(data, "multilabel")
        super().__init__(data, pos_weight=pos_weight, label_smoothing=label_smoothing)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class.

        Raises:
            DataError: the split is empty, or no label has both positive and negative rows.
            TrainingError: a prediction is not finite.
        """
        found = super().evaluate(prediction, rows)
        probability, truth = prediction.double().sigmoid(), rows["target"].long()
        return {
            "auc": mean_auc(prediction.double(), truth, self.classes),
            "accuracy": float(((prediction > 0).long() == truth).double().mean()),
            "map": found["map"],
            "ece": binary_ece(probability.flatten(), truth.flatten()),
        }


def mean_auc(score: Tensor, truth: Tensor, classes: tuple[str, ...]) -> float:
    """Mean over columns of the area under the ROC curve of scores ``[N, L]`` for 0/1 truth ``[N, L]``; columns with
    one class only are left out.

    Raises:
        DataError: all are.
    """
    positives = truth.sum(dim=0)
    usable = ((positives > 0) & (positives < len(truth))).nonzero().flatten().tolist()
    if not usable:
        raise DataError(
            f"none of {', '.join(classes)} has both positive and negative rows in the split",
            where="AUC",
            fix="split so that classes occur in every split",
        )
    areas = [roc_auc(score[:, label], truth[:, label]) for label in usable]
    return sum(areas) / len(areas)
