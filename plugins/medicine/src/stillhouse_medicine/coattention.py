"""Image and question that attend to each other, and the answer read from both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillhouse.types import Task
from stillhouse_medicine.encoders.frozen import Frozen
from stillhouse_medicine.layers import padding_of


class AttentionPool(nn.Module):
    """Weighted mean over positions ``[B, P, W] -> [B, W]``, padding left out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, states: Tensor, padding: Tensor | None = None) -> Tensor:
        """See the class; ``padding`` is ``[B, P]``, bool."""
        score = self.score(states)
        if padding is not None:
            score = score.masked_fill(padding.unsqueeze(-1), float("-inf"))
        return (score.softmax(dim=1) * states).sum(dim=1)


class CoAttention(nn.Module):
    """Image and question attend to themselves and to each other, layer by layer (Lu et al. 2016; Yu et al. 2019)."""

    def __init__(self, width: int, attention_heads: int, layers: int, dropout: float) -> None:
        super().__init__()

        def layer() -> nn.Module:
            return nn.TransformerDecoderLayer(
                width, attention_heads, 2 * width, dropout, batch_first=True, norm_first=True
            )

        self.image = nn.ModuleList(layer() for _ in range(layers))
        self.question = nn.ModuleList(layer() for _ in range(layers))

    def forward(self, image: Tensor, question: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """New states of image ``[B, P, W]`` and question ``[B, L, W]``, whose ``padding`` ``[B, L]`` is not seen."""
        for over_image, over_question in zip(self.image, self.question, strict=True):
            image, question = (
                over_image(image, question, memory_key_padding_mask=padding),
                over_question(question, image, tgt_key_padding_mask=padding),
            )
        return image, question


class VQACoAttention(nn.Module):
    """Image encoder, question encoder, co-attention, answers; see `vqa_coattention`.

    Modules to tap: ``image_features``, ``question_features`` and ``fused``, each ``[B, width]``.
    """

    def __init__(
        self,
        task: Task,
        image: nn.Module,
        text: nn.Module,
        *,
        pretrained_text: bool,
        width: int,
        attention_heads: int,
        layers: int,
        dropout: float,
        positions: int,
        freeze: bool,
        freeze_text: bool,
    ) -> None:
        super().__init__()
        self.image = Frozen(image) if freeze else image
        self.text = Frozen(text) if freeze_text else text
        self.pad, self.pretrained_text = int(text.pad), pretrained_text
        self.project_image = nn.Sequential(nn.Linear(image.width, width), nn.LayerNorm(width), nn.Dropout(dropout))
        self.project_text = nn.Sequential(nn.Linear(text.width, width), nn.LayerNorm(width), nn.Dropout(dropout))
        self.places = nn.Parameter(torch.randn(1, positions, width) * 0.02)
        self.pool_image, self.pool_question = AttentionPool(width), AttentionPool(width)
        self.image_features, self.question_features = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CoAttention(width, attention_heads, layers, dropout)
        self.pool_both = nn.ModuleList([AttentionPool(width), AttentionPool(width)])
        self.mix = nn.Sequential(nn.Linear(5 * width, width), nn.GELU())
        self.fused = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, task.outputs)

    def forward(self, image: Tensor, question: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """Logits ``[B, A + 1]`` for images ``[B, C, H, W]`` and word numbers ``[B, L]``, or the tokens of a pre-trained
        text encoder."""
        numbers = tokens if self.pretrained_text else question
        assert numbers is not None
        padding = padding_of(numbers, self.pad)
        seen = self.project_image(self.image(image)) + self.places
        asked = self.project_text(self.text(numbers))
        image_alone = self.image_features(self.pool_image(seen))
        question_alone = self.question_features(self.pool_question(asked, padding))
        seen, asked = self.attention(seen, asked, padding)
        parts = [self.pool_both[0](seen), self.pool_both[1](asked, padding)]
        parts += [image_alone, question_alone, image_alone * question_alone]
        return self.output(self.dropout(self.fused(self.mix(torch.cat(parts, dim=1)))))
