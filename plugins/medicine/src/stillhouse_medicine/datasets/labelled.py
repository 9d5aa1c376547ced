"""From labelled images to splits, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import OptionError
from stillhouse.types import DataInfo, Splits, TensorSpec
from stillhouse_medicine.augment import NONE, Augment
from stillhouse_medicine.images import ImageSplit


@dataclass(frozen=True)
class Labels:
    """Targets of one split, with the stable row ids and the groups of its rows.

    Args:
        target: class ``[N]`` int64, 0/1 ``[N]`` or ``[N, L]`` float32, or masks ``[N, H, W]`` int64.
        index: row ids ``[N]``, unique over all splits.
        groups: what must not be in two splits, when the protocol separates by it.
    """

    target: Tensor
    index: Tensor
    groups: Sequence[str] | None = None


def flipped(labels: Labels, share: float, *, task: str, classes: int, seed: int) -> Labels:
    """The labels with a ``share`` of the rows given another class, each other class being as likely (symmetric noise).

    Which rows these are, and their number to the nearest row, depends on the seed alone.

    Raises:
        OptionError: the share is outside [0, 1), or rows have not one class each.
    """
    if not 0 <= share < 1:
        raise OptionError(f"noise is {share}", where="dataset.noise", fix="a share of the labels, below 1")
    if not share:
        return labels
    if task not in ("multiclass", "binary"):
        raise OptionError(f"noise is for one class a row, not for a {task} task", where="dataset.noise", fix="0")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(labels.target), generator=generator)[: round(share * len(labels.target))]
    step = torch.randint(1, classes, (len(rows),), generator=generator)
    target = labels.target.clone()
    target[rows] = ((target[rows].long() + step) % classes).to(target.dtype)
    return replace(labels, target=target)


def build(
    pictures: Mapping[str, Tensor],
    labels: Mapping[str, Labels],
    *,
    classes: tuple[str, ...],
    task: str,
    augment: Augment,
    description: str,
    simulated: bool = False,
    meta: Mapping[str, Any] | None = None,
) -> Splits:
    """Splits with the input ``image`` ``[C, H, W]`` from pictures ``[N, C, H, W]`` (uint8) and labels by split name.

    ``task`` is "multiclass", "binary", "multilabel" or "segmentation"; heads of this plugin check it.
    """
    parts = {
        name: ImageSplit(
            pictures[name],
            {"target": each.target, "index": each.index},
            augment=augment if name == "train" else NONE,
            masks=task == "segmentation",
            groups=each.groups,
        )
        for name, each in labels.items()
    }
    info = DataInfo(
        inputs={"image": TensorSpec(tuple(pictures["train"].shape[1:]))},
        classes=classes,
        class_counts=_counts(labels["train"].target, task, len(classes)),
        description=description,
        simulated=simulated,
        meta={"task": task, **(meta or {})},
    )
    return Splits(info=info, train=parts["train"], val=parts["val"], test=parts["test"])


def _counts(target: Tensor, task: str, classes: int) -> tuple[int, ...] | None:
    if task == "segmentation":
        return None
    if task == "multilabel":
        return tuple(int(count) for count in target.sum(dim=0).tolist())
    return tuple(torch.bincount(target.long(), minlength=classes).tolist())
