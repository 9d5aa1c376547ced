"""A class for each pixel."""

from __future__ import annotations

from stillhouse import heads
from stillhouse.types import DataInfo
from stillhouse_medicine.heads.task import require_task


class Segmentation(heads.Segmentation):
    """A class for each pixel; logits ``[B, C, H, W]``, masks ``[B, H, W]`` where 255 is ignored.

    Metrics: ``dice`` (primary; mean over the classes other than background), ``iou``, ``pixel_accuracy``.

    Args:
        data: the dataset, with its class names, background first.
        dice_weight: factor on the Dice loss that is added to the cross-entropy.

    Raises:
        DataError: fewer than two classes are declared.
        IncompatibleError: the dataset's task is another one.
    """

    def __init__(self, data: DataInfo, *, dice_weight: float = 1.0) -> None:
        require_task(data, "segmentation")
        super().__init__(data, dice_weight=dice_weight)
