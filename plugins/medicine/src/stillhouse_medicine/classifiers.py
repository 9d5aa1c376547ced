"""A convolutional body and the head's output layer."""

from __future__ import annotations

from torch import Tensor, nn

from stillhouse.types import Task
from stillhouse_medicine.encoders.images import TorchvisionImage


class ImageClassifier(nn.Module):
    """A convolutional body, the mean over positions, the head's output layer.

    Modules to tap: ``body`` (``[B, C, H, W]``) and ``features`` (``[B, C]``).
    """

    def __init__(self, task: Task, body: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.body = body
        self.features = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, task.outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``[B, outputs]`` for images ``[B, C, H, W]``."""
        return self.output(self.dropout(self.features(self.body(image))))


class TorchvisionClassifier(nn.Module):
    """A torchvision body, the mean over positions, the head's output layer; see `torchvision_classifier`.

    Modules to tap: ``body`` (``[B, P, D]``, one vector a position) and ``output``.
    """

    def __init__(self, task: Task, body: TorchvisionImage, dropout: float) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(body.width, task.outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``[B, outputs]`` for images ``[B, C, H, W]``."""
        return self.output(self.dropout(self.body(image).mean(dim=1)))
