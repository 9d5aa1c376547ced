"""Answers to questions about images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.errors import IncompatibleError
from stillhouse.heads import checks
from stillhouse.kinds import OutputKind
from stillhouse.types import Batch, DataInfo, Head, ReportFigure


class VQA(Head):
    """Answers to questions about images: one class for each answer of the training rows, logits ``[B, A + 1]``.

    The last class stands for every answer that training does not teach. Such rows count as wrong whatever the model
    says, give no hard loss, and no prediction is ever that class.

    Metrics: ``accuracy`` over all questions (primary), ``closed_accuracy`` and ``open_accuracy`` by the question's
    type (left out when a split has none), and ``answerable``, the share of rows whose answer is a class: no model can
    be more accurate than that.

    Args:
        data: gives the answers; of a dataset such as medicine/vqa-rad.
        label_smoothing: probability mass spread evenly over all answers in the hard loss.

    Raises:
        IncompatibleError: the dataset asks no questions.
    """

    kind = OutputKind.MULTICLASS
    primary = "accuracy"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(self, data: DataInfo, *, label_smoothing: float = 0.0) -> None:
        outside = data.meta.get("outside")
        if data.classes is None or outside != len(data.classes) - 1:
            raise IncompatibleError(
                "the dataset has no vocabulary of answers",
                where="head 'medicine/vqa'",
                fix="choose medicine/vqa-rad, medicine/vqa or medicine/vqa-sim, or the head medicine/multiclass",
            )
        self.classes, self.outside, self.outputs = data.classes, int(outside), len(data.classes)
        self.label_smoothing = checks.in_range("label_smoothing", label_smoothing, 0, 1, head="vqa")

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, mean over rows whose answer is a class.

        The last class is in the softmax and never a target, so that training teaches models to leave it out: the
        soft loss compares it like any other.
        """
        prediction = checks.shaped(prediction, [self.outputs], head="vqa")
        loss = functional.cross_entropy(
            prediction,
            batch["target"],
            ignore_index=self.outside,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return checks.row_mean(loss, batch, batch["target"] != self.outside)

    def choose(self, prediction: Tensor) -> Tensor:
        """The likeliest answer of each row ``[N]``; never the last class."""
        prediction = checks.shaped(prediction, [self.outputs], head="vqa")
        return prediction[:, : self.outside].argmax(dim=1)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class.

        Raises:
            DataError: the split is empty.
            TrainingError: a prediction is not finite.
        """
        checks.judged(prediction, rows, head="vqa")
        right = (self.choose(prediction) == rows["target"]).double()
        closed = rows["closed"].bool()
        found = {"accuracy": float(right.mean())}
        for name, which in (("closed_accuracy", closed), ("open_accuracy", ~closed)):
            if which.any():
                found[name] = float(right[which].mean())
        found["answerable"] = float((rows["target"] != self.outside).double().mean())
        return found

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``answer``, and its ``probability`` among all answers."""
        prediction = checks.shaped(prediction, [self.outputs], head="vqa")
        best, choice = prediction[:, : self.outside].softmax(dim=1).max(dim=1)
        return {"answer": [self.classes[at] for at in choice.tolist()], "probability": best.tolist()}

    def row_entries(self) -> tuple[str, ...]:
        """The type of each question."""
        return ("closed",)

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Accuracy by the type of question."""
        from stillhouse.heads import figures

        closed = rows["closed"].bool()
        kinds = [("all", torch.ones_like(closed)), ("closed", closed), ("open", ~closed)]
        kinds = [(name, which) for name, which in kinds if which.any()]
        right = {name: self.choose(values) == rows["target"] for name, values in predictions.items()}
        accuracy = {name: [float(each[which].double().mean()) for _, which in kinds] for name, each in right.items()}
        names = [f"{name} (n={int(which.sum())})" for name, which in kinds]
        return [figures.by_name(names, accuracy, measure="accuracy", title="Accuracy by type of question")]
