"""Heads that label every position: pixels of an image, tokens of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.errors import DataError
from stillhouse.heads.checks import class_names, in_range, judged, labels_in_range, row_mean, shaped
from stillhouse.heads.measures import confusion
from stillhouse.kinds import SEGMENTATION_IGNORE, SEQUENCE_IGNORE, OutputKind
from stillhouse.types import Batch, DataInfo, Head, ReportFigure


def _masked_mean(loss: Tensor, valid: Tensor, batch: Batch) -> Tensor:
    """Mean over valid positions, each row counting for its number of them times its weight."""
    positions = valid.flatten(1).sum(dim=1)
    # An ignored position may hold a huge logit: where() keeps it out of the sum and of the gradient.
    per_row = torch.where(valid, loss, torch.zeros_like(loss)).flatten(1).sum(dim=1)
    return row_mean(per_row, batch, positions)


class Segmentation(Head):
    """A class for each pixel; logits ``[B, C, H, W]``, target ``[B, H, W]`` where 255 is ignored. Class 0 is
    background.

    Args:
        data: the dataset, with its class names, background first.
        dice_weight: factor on the Dice loss that is added to the cross-entropy.

    Raises:
        DataError: fewer than two classes are declared.
        OptionError: dice_weight is negative.
    """

    kind = OutputKind.SEGMENTATION
    primary = "dice"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(self, data: DataInfo, *, dice_weight: float = 1.0) -> None:
        self.classes = class_names(data, head="segmentation")
        self.outputs = len(self.classes)
        self.dice_weight = in_range("dice_weight", dice_weight, 0, float("inf"), head="segmentation")

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy over valid pixels plus ``dice_weight`` times one minus the soft Dice coefficient of
        the foreground classes that occur in the batch (Milletari et al. 2016, V-Net, equation of section
        3)."""
        prediction = shaped(prediction, [self.outputs, -1, -1], head="segmentation")
        target = batch["target"].long()
        valid = target != SEGMENTATION_IGNORE
        loss = F.cross_entropy(prediction, target, ignore_index=SEGMENTATION_IGNORE, reduction="none")
        total = _masked_mean(loss, valid, batch)
        if self.dice_weight:
            total = total + self.dice_weight * self._dice_loss(prediction, target, valid, batch)
        return total

    def _dice_loss(self, prediction: Tensor, target: Tensor, valid: Tensor, batch: Batch) -> Tensor:
        share = valid.unsqueeze(1).to(prediction)
        if "weight" in batch:
            share = share * batch["weight"].to(prediction).reshape(-1, 1, 1, 1)
        probability = prediction.softmax(dim=1)
        truth = F.one_hot(target.masked_fill(~valid, 0), self.outputs).movedim(-1, 1).to(prediction)
        overlap = (probability * truth * share).sum(dim=(0, 2, 3))[1:]
        size = ((probability + truth) * share).sum(dim=(0, 2, 3))[1:]
        occurs = (truth * share).sum(dim=(0, 2, 3))[1:] > 0
        dice = 2 * overlap / size.clamp_min(torch.finfo(prediction.dtype).eps)
        return torch.where(occurs, 1 - dice, torch.zeros_like(dice)).sum() / occurs.sum().clamp_min(1)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``dice`` (mean over foreground classes that occur in truth or prediction), ``iou`` (mean over all
        such classes), ``pixel_accuracy``; pixels of the whole split are pooled.

        Raises:
            DataError: the split is empty, all its pixels are ignored, or neither truth nor prediction has
                foreground.
            TrainingError: a prediction is not finite.
        """
        prediction = shaped(prediction, [self.outputs, -1, -1], head="segmentation")
        judged(prediction, rows, head="segmentation")
        dice, iou, accuracy = self._per_class(prediction, rows["target"])
        foreground = dice[1:][~dice[1:].isnan()]
        if not len(foreground):
            raise DataError(
                "no pixel of the split is of a foreground class",
                where="metrics of head 'segmentation'",
                fix="split so that every split has foreground",
            )
        return {
            "dice": float(foreground.mean()),
            "iou": float(iou[~iou.isnan()].mean()),
            "pixel_accuracy": accuracy,
        }

    def _per_class(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, float]:
        target = labels_in_range(target.long(), self.outputs, head="segmentation", ignore=SEGMENTATION_IGNORE)
        if not bool((target != SEGMENTATION_IGNORE).any()):
            raise DataError("every pixel of the split is ignored", where="metrics of head 'segmentation'")
        counted = target != SEGMENTATION_IGNORE
        table = confusion(prediction.argmax(dim=1)[counted], target[counted], self.outputs)
        hit = table.diag()
        size = table.sum(dim=0) + table.sum(dim=1)
        return (
            2 * hit / size,
            hit / (size - hit),
            float(hit.sum() / table.sum()),
        )  # 0 / 0 is NaN: absent class

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``mask`` (class number of each pixel, rows of the image first), and ``share_<class>`` of the
        pixels."""
        mask = shaped(prediction, [self.outputs, -1, -1], head="segmentation").argmax(dim=1)
        return {
            "mask": mask.tolist(),
            **{f"share_{name}": (mask == i).float().mean(dim=(1, 2)).tolist() for i, name in enumerate(self.classes)},
        }

    def output_layer(self, width: int) -> nn.Module:
        """A 1x1 convolution."""
        return nn.Conv2d(width, self.outputs, kernel_size=1)

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Intersection over union of each class."""
        from stillhouse.heads import figures

        iou = {name: self._per_class(values, rows["target"])[1].tolist() for name, values in predictions.items()}
        return [figures.by_name(self.classes, iou, measure="intersection over union", title="Overlap by class")]


class Sequence(Head):
    """A token for each position; logits ``[B, T, V]``, target ``[B, T]`` where -100 is ignored.

    Args:
        data: the dataset; its classes are the vocabulary, else ``meta["vocabulary"]`` is its size.
        label_smoothing: probability mass spread evenly over the vocabulary in the hard loss.

    Raises:
        DataError: the vocabulary is not known.
        OptionError: label_smoothing is outside [0, 1).
    """

    kind = OutputKind.SEQUENCE
    primary = "token_accuracy"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(self, data: DataInfo, *, label_smoothing: float = 0.0) -> None:
        self.tokens = data.classes
        size = len(data.classes) if data.classes else data.meta.get("vocabulary", 0)
        if not isinstance(size, int) or size < 2:
            raise DataError(
                "the dataset does not say how large its vocabulary is",
                where="DataInfo.classes",
                fix="declare the tokens as classes, or their number as meta['vocabulary']",
            )
        self.outputs = size
        self.label_smoothing = in_range("label_smoothing", label_smoothing, 0, 1, head="sequence")

    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, mean over valid tokens of the batch."""
        prediction = shaped(prediction, [-1, self.outputs], head="sequence")
        target = batch["target"].long()
        loss = F.cross_entropy(
            prediction.movedim(2, 1),
            target,
            ignore_index=SEQUENCE_IGNORE,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return _masked_mean(loss, target != SEQUENCE_IGNORE, batch)

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``token_accuracy`` and ``perplexity`` over valid tokens.

        Raises:
            DataError: the split is empty or has no valid token.
            TrainingError: a prediction is not finite.
        """
        prediction = shaped(prediction, [-1, self.outputs], head="sequence")
        judged(prediction, rows, head="sequence")
        target = labels_in_range(rows["target"].long(), self.outputs, head="sequence", ignore=SEQUENCE_IGNORE)
        valid = target != SEQUENCE_IGNORE
        if not bool(valid.any()):
            raise DataError("every token of the split is ignored", where="metrics of head 'sequence'")
        nll = float(F.cross_entropy(prediction[valid].double(), target[valid]))
        return {
            "token_accuracy": float((prediction.argmax(dim=2) == target)[valid].double().mean()),
            "perplexity": math.exp(min(nll, 700.0)),  # exp(700) is the edge of float64
        }

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``tokens``: names when the dataset has them, else numbers."""
        choice = shaped(prediction, [-1, self.outputs], head="sequence").argmax(dim=2).tolist()
        if self.tokens is None:
            return {"tokens": choice}
        return {"tokens": [[self.tokens[i] for i in row] for row in choice]}

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Accuracy by position."""
        from stillhouse.heads import figures

        target = rows["target"].long()
        valid = target != SEQUENCE_IGNORE
        accuracy = {
            name: (((values.argmax(dim=2) == target) & valid).sum(0) / valid.sum(0)).tolist()
            for name, values in predictions.items()
        }
        return [figures.by_position(accuracy)]
