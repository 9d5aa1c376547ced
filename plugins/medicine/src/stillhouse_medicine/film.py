"""A question whose features an image scales and shifts (FiLM, Perez et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillhouse.types import Task
from stillhouse_medicine.encoders.frozen import Frozen
from stillhouse_medicine.layers import padding_of


class Components(nn.Module):
    """What a frozen encoder says of an image as a few numbers: ``[B, P, W] -> [B, components]``.

    These are the principal components of the mean over positions, standardised; they are fitted on the first batch that
    is seen in training, and stay as they are. A few hundred images cannot teach more than a coarse view of an image:
    from all of its features a model overfits to the images.
    """

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.width = components
        self.mean: Tensor
        self.directions: Tensor
        self.fitted: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.zeros(width, components))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, states: Tensor) -> Tensor:
        """See the class."""
        pooled = states.mean(dim=1)
        if self.training and not self.fitted:
            self._fit(pooled.detach())
        return (pooled - self.mean) @ self.directions

    def _fit(self, pooled: Tensor) -> None:
        distinct = torch.unique(pooled, dim=0)
        spread = distinct.std(dim=0, correction=0)
        scale = 1 / (spread + 1e-3 * spread.max()).clamp_min(1e-12)
        self.mean.copy_(distinct.mean(dim=0))
        standard = (distinct - self.mean) * scale
        _, values, rows = torch.linalg.svd(standard, full_matrices=False)
        # Directions along which the images do not differ would be noise, made large.
        count = min(self.width, int((values > 1e-3 * values.max()).sum()))
        deviation = values[:count] / len(distinct) ** 0.5
        self.directions[:, :count] = scale[:, None] * rows[:count].T / deviation
        self.fitted.fill_(True)


class Everything(nn.Module):
    """All that a frozen encoder says of an image: ``[B, P, W] -> [B, W]``, the mean over positions, each feature
    standardised by the first batch that is seen in training, all of them scaled to a length of ``sqrt(W)``.

    An image is then told from every other, which helps where test asks about images that training has seen, and nowhere
    else.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mean: Tensor
        self.scale: Tensor
        self.fitted: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, states: Tensor) -> Tensor:
        """See the class."""
        pooled = states.mean(dim=1)
        if self.training and not self.fitted:
            distinct = torch.unique(pooled.detach(), dim=0)
            spread = distinct.std(dim=0, correction=0)
            self.mean.copy_(distinct.mean(dim=0))
            self.scale.copy_(1 / (spread + 1e-3 * spread.max()).clamp_min(1e-12))
            self.fitted.fill_(True)
        return self.width**0.5 * nn.functional.normalize((pooled - self.mean) * self.scale, dim=1)


class Learnt(nn.Module):
    """What an encoder that learns says of an image as a few standardised numbers; shapes as `Components`."""

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(width, components, bias=False), nn.BatchNorm1d(components, affine=False))

    def forward(self, states: Tensor) -> Tensor:
        """See the class."""
        found: Tensor = self.reduce(states.mean(dim=1))
        return found


class Modulate(nn.Module):
    """Features of a question ``[B, width]``, scaled and shifted by a few numbers of an image ``[B, components]``."""

    def __init__(self, components: int, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Linear(components, width), nn.Linear(components, width)

    def forward(self, asked: Tensor, seen: Tensor) -> Tensor:
        """See the class."""
        modulated: Tensor = asked * (1 + self.scale(seen).tanh()) + self.shift(seen)
        return modulated


class VQAFiLM(nn.Module):
    """Two encoders, and between them one linear scale and shift; see `teachers.vqa_film`.

    Modules to tap: ``image_features`` (``[B, components]``, or ``[B, W]`` with all features of the image encoder),
    ``question_features`` and ``fused`` (``[B, width]``).
    """

    def __init__(
        self,
        task: Task,
        image: nn.Module,
        text: nn.Module,
        *,
        pretrained_text: bool,
        freeze: bool,
        components: int | None,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.image = Frozen(image) if freeze else image
        self.text = Frozen(text) if pretrained_text else text
        self.pad, self.pretrained_text = int(text.pad), pretrained_text
        seen = int(image.width)
        self.image_features: nn.Module
        if components is None:
            self.image_features = Everything(seen)
        else:
            self.image_features = (Components if freeze else Learnt)(seen, components)
        self.standardise = nn.BatchNorm1d(int(text.width), affine=False)
        self.question_features = nn.Sequential(nn.Dropout(0.4 * dropout), nn.Linear(int(text.width), width), nn.ReLU())
        self.fused = Modulate(components or seen, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, task.outputs)

    def forward(self, image: Tensor, question: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """Logits ``[B, A + 1]`` for images ``[B, C, H, W]`` and word numbers ``[B, L]``, or the tokens of a pre-trained
        text encoder."""
        numbers = tokens if self.pretrained_text else question
        assert numbers is not None
        present = (~padding_of(numbers, self.pad)).unsqueeze(-1)
        words = (self.text(numbers) * present).sum(dim=1) / present.sum(dim=1)
        asked = self.question_features(self.standardise(words))
        seen = self.image_features(self.image(image))
        return self.output(self.dropout(self.fused(asked, seen)))
