"""Students: small readers for where a transformer is too slow or too large."""

from __future__ import annotations

from stillhouse.types import Task
from torch import Tensor, nn


class Phrases(nn.Module):
    """Convolution over word vectors, and the strongest response to each filter anywhere in the text.

    Args:
        task: what the framework gives: the inputs, and the width of the prediction.
        width: features of a word.
        filters: phrases that are looked for.
        words: words that a phrase spans.
    """

    def __init__(self, task: Task, *, width: int = 12, filters: int = 24, words: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(task.info.meta["vocabulary"], width)
        self.filters = nn.Conv1d(width, filters, words, padding=words // 2)
        self.output = nn.Linear(filters, task.outputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits ``[B, task.outputs]`` for word numbers and mask ``[B, L]``."""
        mask = attention_mask[:, None].float()
        responses = self.filters(self.embed(input_ids).transpose(1, 2) * mask).relu()
        return self.output((responses[..., : mask.shape[-1]] * mask).amax(dim=-1))


class BagOfWords(nn.Module):
    """The sum over a text of one score for each word and class.

    Args:
        task: what the framework gives: the inputs, and the width of the prediction.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.scores = nn.Embedding(task.info.meta["vocabulary"], task.outputs)
        nn.init.zeros_(self.scores.weight)
        self.bias = nn.Parameter(self.scores.weight.new_zeros(task.outputs))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits ``[B, task.outputs]`` for word numbers and mask ``[B, L]``."""
        mask = attention_mask[..., None].float()
        return (self.scores(input_ids) * mask).sum(dim=1) + self.bias
