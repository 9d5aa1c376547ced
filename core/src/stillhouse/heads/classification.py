"""Heads that classify a row: one class of several, yes or no, any number of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from sklearn.metrics import precision_recall_curve
from torch import Tensor
from torch.nn import functional as F

from stillhouse.errors import DataError
from stillhouse.heads.checks import class_names, counts, in_range, judged, labels_in_range, log_shares, row_mean, shaped
from stillhouse.heads.measures import average_precision, binary_ece, f1, multiclass_ece, recall, roc_auc
from stillhouse.kinds import OutputKind
from stillhouse.types import Batch, DataInfo, Head, ReportFigure


class Multiclass(Head):
    """One class of several; logits ``[B, C]``.

    The hard loss is cross-entropy and takes classes ``[B]`` or probabilities ``[B, C]`` (mixup) as target.

    Args:
        data: the dataset, with its class names.
        class_weights: "balanced" weighs each class by rows / (classes * rows of the class); none when left
            out.
        label_smoothing: probability mass spread evenly over all classes in the hard loss.

    Raises:
        DataError: fewer than two classes are declared, or there are no counts to balance by.
        OptionError: label_smoothing is outside [0, 1).
    """

    kind = OutputKind.MULTICLASS
    primary = "accuracy"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(
        self,
        data: DataInfo,
        *,
        class_weights: Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.data = data
        self.classes = class_names(data, head="multiclass")
        self.outputs = len(self.classes)
        self.label_smoothing = in_range("label_smoothing", label_smoothing, 0, 1, head="multiclass")
        self.weights: Tensor | None = None
        if class_weights == "balanced":
            rows = counts(data, head="multiclass", classes=self.outputs)
            self.weights = rows.sum() / (self.outputs * rows)

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy; with class weights the mean is weighted, as in `torch.nn.CrossEntropyLoss`."""
        prediction = shaped(prediction, [self.outputs], head="multiclass")
        target = batch["target"]
        soft = target.is_floating_point()
        weights = None if self.weights is None else self.weights.to(prediction)
        per_row = F.cross_entropy(
            prediction,
            target.to(prediction.dtype) if soft else target,
            weight=weights,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return row_mean(per_row, batch, None if weights is None or soft else weights[target])

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``accuracy``, ``macro_f1`` (over classes that occur), ``auc`` (macro, one against rest; left out
        when a class has no rows), ``ece`` (15 bins), ``nll``.

        Raises:
            DataError: the split is empty, or a label is outside the declared classes.
            TrainingError: a prediction is not finite.
        """
        prediction = shaped(prediction, [self.outputs], head="multiclass")
        judged(prediction, rows, head="multiclass")
        target = labels_in_range(rows["target"].long(), self.outputs, head="multiclass")
        probability = prediction.double().softmax(dim=1)
        choice = prediction.argmax(dim=1)
        found = {
            "accuracy": float((choice == target).double().mean()),
            "macro_f1": float(f1(choice, target, self.outputs).nanmean()),
            "ece": multiclass_ece(probability, target),
            "nll": float(F.cross_entropy(prediction.double(), target)),
        }
        if len(torch.unique(target)) == self.outputs:
            areas = [roc_auc(probability[:, each], target == each) for each in range(self.outputs)]
            found["auc"] = sum(areas) / self.outputs
        return found

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``label``, its ``probability``, and ``p_<class>`` of every class."""
        probability = shaped(prediction, [self.outputs], head="multiclass").softmax(dim=1)
        best, choice = probability.max(dim=1)
        return {
            "label": [self.classes[i] for i in choice.tolist()],
            "probability": best.tolist(),
            **{f"p_{name}": probability[:, i].tolist() for i, name in enumerate(self.classes)},
        }

    def references(self, rows: Batch) -> dict[str, Tensor]:
        """``most frequent training class``: each class with its share of the training rows, where the dataset counts
        them."""
        shares = log_shares(self.data, len(self.classes), len(rows["target"]))
        return {} if shares is None else {"most frequent training class": shares}

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Recall of each class, and a reliability diagram."""
        from stillhouse.heads import figures

        target = rows["target"].long()
        probability = {name: values.double().softmax(dim=1) for name, values in predictions.items()}
        recall = {
            name: [float((values.argmax(1)[target == c] == c).double().mean()) for c in range(self.outputs)]
            for name, values in probability.items()
        }
        confidence = {name: (values.max(1).values, values.argmax(1) == target) for name, values in probability.items()}
        return [
            figures.by_name(self.classes, recall, measure="recall", title="Recall by class"),
            figures.reliability(confidence, horizontal="confidence", vertical="accuracy"),
        ]


class Binary(Head):
    """Yes or no; logits ``[B, 1]``, target 0/1 ``[B]`` (or a probability).

    Args:
        data: the dataset; its two class names (no, yes) are used when declared.
        pos_weight: factor on the loss of positives; "balanced" is negatives / positives of the training rows.
        label_smoothing: moves the targets 0 and 1 towards one half by this share, in the hard loss only.

    Raises:
        DataError: other than two classes are declared, or there are no counts to balance by.
        OptionError: label_smoothing is outside [0, 1).
    """

    kind = OutputKind.BINARY
    outputs = 1
    primary = "average_precision"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(
        self,
        data: DataInfo,
        *,
        pos_weight: float | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.data = data
        self.classes = data.classes or ("no", "yes")
        if len(self.classes) != 2:
            raise DataError(
                f"the dataset declares {len(self.classes)} classes, and head 'binary' needs two",
                where="DataInfo.classes",
                fix="choose the head 'multiclass' or 'multilabel'",
            )
        self.label_smoothing = in_range("label_smoothing", label_smoothing, 0, 1, head="binary")
        self.pos_weight: Tensor | None = None
        if pos_weight == "balanced":
            negatives, positives = counts(data, head="binary", classes=2)
            self.pos_weight = negatives / positives
        elif pos_weight is not None:
            self.pos_weight = torch.tensor(in_range("pos_weight", float(pos_weight), 0, float("inf"), head="binary"))

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy with logits, mean over rows."""
        prediction = shaped(prediction, [1], head="binary").squeeze(1)
        target = batch["target"].to(prediction).reshape(-1)
        target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        pos_weight = None if self.pos_weight is None else self.pos_weight.to(prediction)
        return row_mean(
            F.binary_cross_entropy_with_logits(prediction, target, pos_weight=pos_weight, reduction="none"),
            batch,
        )

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``average_precision``, ``roc_auc``, ``recall`` and ``f1`` at a probability of one half, ``ece``,
        ``nll``.

        Raises:
            DataError: the split is empty, has one class only, or a label is neither 0 nor 1.
            TrainingError: a prediction is not finite.
        """
        logits = shaped(prediction, [1], head="binary").squeeze(1).double()
        judged(prediction, rows, head="binary")
        target = labels_in_range(rows["target"].reshape(-1).long(), 2, head="binary")
        positives = int(target.sum())
        if positives in (0, len(target)):
            raise DataError(
                f"all {len(target)} rows of the split are of class '{self.classes[int(target[0])]}'",
                where="metrics of head 'binary'",
                fix="split so that both classes occur, e.g. with stratification",
            )
        choice = (logits >= 0).long()
        return {
            "average_precision": average_precision(logits, target),
            "roc_auc": roc_auc(logits, target),
            "recall": float(recall(choice, target, 2)[1]),
            "f1": float(f1(choice, target, 2)[1]),
            "ece": binary_ece(logits.sigmoid(), target),
            "nll": float(F.binary_cross_entropy_with_logits(logits, target.double())),
        }

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``label`` at a probability of one half, and the ``probability`` of the second class."""
        probability = shaped(prediction, [1], head="binary").squeeze(1).sigmoid()
        return {
            "label": [self.classes[int(value >= 0.5)] for value in probability.tolist()],
            "probability": probability.tolist(),
        }

    def references(self, rows: Batch) -> dict[str, Tensor]:
        """``share of training positives`` for every row, where the dataset counts its classes."""
        shares = log_shares(self.data, len(self.classes), len(rows["target"]))
        return {} if shares is None else {"share of training positives": shares[:, 1:] - shares[:, :1]}

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Precision against recall, and a reliability diagram."""
        from stillhouse.heads import figures

        target = rows["target"].reshape(-1).long()
        curves = {}
        for name, values in predictions.items():
            precise, found, _ = precision_recall_curve(target.numpy(), values.reshape(-1).numpy())
            curves[name] = (torch.from_numpy(found), torch.from_numpy(precise))
        confidence = {
            name: (values.reshape(-1).double().sigmoid(), target == 1) for name, values in predictions.items()
        }
        return [
            figures.precision_recall(curves, base_rate=float(target.double().mean())),
            figures.reliability(confidence, horizontal="predicted probability", vertical="share of positives"),
        ]


class Multilabel(Head):
    """Any number of labels at once; logits ``[B, L]``, target 0/1 ``[B, L]``.

    Args:
        data: the dataset, with its label names.
        pos_weight: factor on the loss of positives, the same for every label.
        label_smoothing: moves the targets 0 and 1 towards one half by this share, in the hard loss only.

    Raises:
        DataError: no labels are declared.
        OptionError: label_smoothing is outside [0, 1).
    """

    kind = OutputKind.MULTILABEL
    primary = "map"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(self, data: DataInfo, *, pos_weight: float | None = None, label_smoothing: float = 0.0) -> None:
        self.classes = class_names(data, head="multilabel", least=1)
        self.outputs = len(self.classes)
        self.label_smoothing = in_range("label_smoothing", label_smoothing, 0, 1, head="multilabel")
        self.pos_weight = (
            None if pos_weight is None else in_range("pos_weight", pos_weight, 0, float("inf"), head="multilabel")
        )

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy with logits, mean over labels, then over rows."""
        prediction = shaped(prediction, [self.outputs], head="multilabel")
        target = batch["target"].to(prediction)
        target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        pos_weight = None if self.pos_weight is None else prediction.new_full((self.outputs,), self.pos_weight)
        loss = F.binary_cross_entropy_with_logits(prediction, target, pos_weight=pos_weight, reduction="none")
        return row_mean(loss.mean(dim=1), batch)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``map`` (mean of the average precision of labels that have positives), ``macro_auc`` (over labels
        that have both; left out when none has).

        Raises:
            DataError: the split is empty, or no label has a positive row.
            TrainingError: a prediction is not finite.
        """
        prediction = shaped(prediction, [self.outputs], head="multilabel")
        judged(prediction, rows, head="multilabel")
        precision = self._per_label(prediction, rows["target"], "average_precision")
        if not precision:
            raise DataError(
                f"none of the {self.outputs} labels has a positive row in the split",
                where="metrics of head 'multilabel'",
                fix="split so that labels occur in every split",
            )
        found = {"map": sum(precision.values()) / len(precision)}
        auc = self._per_label(prediction, rows["target"], "auroc")
        if auc:
            found["macro_auc"] = sum(auc.values()) / len(auc)
        return found

    def _per_label(
        self, prediction: Tensor, target: Tensor, measure: Literal["average_precision", "auroc"]
    ) -> dict[int, float]:
        target = labels_in_range(target.long(), 2, head="multilabel")
        positives = target.sum(dim=0)
        usable = positives > 0
        if measure == "auroc":
            usable = usable & (positives < len(target))
        compute = average_precision if measure == "average_precision" else roc_auc
        return {int(label): compute(prediction[:, label], target[:, label]) for label in usable.nonzero().flatten()}

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``labels`` at a probability of one half or more, and ``p_<label>`` of every label."""
        probability = shaped(prediction, [self.outputs], head="multilabel").sigmoid()
        return {
            "labels": [
                [name for name, p in zip(self.classes, row, strict=True) if p >= 0.5] for row in probability.tolist()
            ],
            **{f"p_{name}": probability[:, i].tolist() for i, name in enumerate(self.classes)},
        }

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Average precision of each label."""
        from stillhouse.heads import figures

        nan = float("nan")
        by_label = {}
        for name, values in predictions.items():
            precision = self._per_label(values, rows["target"], "average_precision")
            by_label[name] = [precision.get(label, nan) for label in range(self.outputs)]
        return [
            figures.by_name(self.classes, by_label, measure="average precision", title="Average precision by label")
        ]
