"""A small encoder with a vocabulary of its own and factorised embeddings."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import OptionError
from stillhouse.kinds import OutputKind
from stillhouse.text.attention import attend
from stillhouse.text.encoders import pooled
from stillhouse.text.vocabulary import OwnVocabulary, text_facts
from stillhouse.types import Task
from stillhouse.units import output_layer


class SelfAttention(nn.Module):
    """Attention of tokens ``[B, T, D]`` among each other; ``scores`` can be tapped."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.scores = nn.Identity()

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """What each token looked up, ``[B, T, D]``; ``mask`` ``[B, 1, 1, T]``."""
        query, key, value = (
            layer(states).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        found, _ = attend(self, query, key, value, mask, dropout=self.rate if self.training else 0.0)
        looked_up: Tensor = self.out(found.flatten(2))
        return looked_up


class Layer(nn.Module):
    """A layer of the transformer, normalised before its parts."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout)
        self.up, self.down, self.dropout = nn.Linear(width, inner), nn.Linear(inner, width), nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States ``[B, T, D]`` to states."""
        states = states + self.dropout(self.attention(self.before(states), mask))
        inner = F.gelu(self.up(self.between(states)))
        made: Tensor = states + self.dropout(self.down(inner))
        return made


class Embeddings(nn.Module):
    """Narrow vectors of tokens, widened, plus vectors of positions."""

    def __init__(self, tokens: int, narrow: int, width: int, positions: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, narrow, padding_idx=0)
        nn.init.normal_(self.tokens.weight, std=0.1)
        self.widen = nn.Linear(narrow, width)
        self.positions = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(self, numbers: Tensor) -> Tensor:
        """``[B, T]`` to ``[B, T, D]``."""
        states: Tensor = self.dropout(self.widen(self.tokens(numbers)) + self.positions[: numbers.shape[1]])
        return states


class TextEncoder(nn.Module):
    """See `text_encoder`. Modules to tap: ``embeddings``, ``layers.0``, ``layers.0.attention.scores``, ..."""

    def __init__(
        self, task: Task, own: OwnVocabulary, embeddings: Embeddings, layers: nn.ModuleList, width: int
    ) -> None:
        super().__init__()
        self.vocabulary, self.embeddings, self.layers = own, embeddings, layers
        self.norm = nn.LayerNorm(width)
        self.output = output_layer(task.kind, width, task.outputs, task.info)
        self.sequence = task.kind is OutputKind.SEQUENCE

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Predictions ``[B, outputs]``, or ``[B, T, outputs]`` for sequences, of ``tokens`` and ``mask`` ``[B, T]``."""
        states, keys = self.embeddings(self.vocabulary(tokens)), mask[:, None, None, :]
        for layer in self.layers:
            states = layer(states, keys)
        states = self.norm(states)
        prediction: Tensor = self.output(states if self.sequence else pooled(states, mask, "mean"))
        return prediction


def text_encoder(
    task: Task,
    *,
    vocabulary: int = 5000,
    embedding: int = 64,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    inner: int = 256,
    dropout: float = 0.1,
    start: str | None = None,
) -> nn.Module:
    """A small transformer over the most frequent tokens of the training rows, whose embeddings are factorised: narrow
    vectors of tokens, and one matrix to the width of the layers (Lan, Chen, Goodman, Gimpel, Sharma, Soricut, "ALBERT",
    2020, section 3.1).

    Args:
        task: what the framework gives.
        vocabulary: number of tokens that it knows; all others are one.
        embedding: width of a token's vector.
        width: width of the layers.
        layers: number of layers; 0 leaves a mean of embeddings.
        heads: attention heads of a layer; they divide the width.
        inner: width between the two matrices of a layer.
        dropout: probability of dropping a feature during training.
        start: folder, hub id or "package:folder" of an encoder with the dataset's tokenizer; its vectors of tokens,
            compressed by a singular value decomposition, are those that training starts from.

    Raises:
        IncompatibleError: the dataset has no texts.
        OptionError: an option is out of range.
    """
    numbers: dict[str, Any] = {"embedding": embedding, "width": width, "heads": heads, "inner": inner}
    if bad := next((name for name, value in numbers.items() if value < 1), None):
        raise OptionError(f"{bad} is {numbers[bad]}", where="core/text-encoder", fix="1 or more")
    if layers < 0 or not 0 <= dropout < 1 or width % heads:
        raise OptionError(
            f"layers are {layers}, dropout {dropout}, width {width} and heads {heads}",
            where="core/text-encoder",
            fix="no less than 0 layers, a dropout from 0 to below 1, and heads that divide the width",
        )
    facts = text_facts(task, "'core/text-encoder'")
    own = OwnVocabulary(facts, vocabulary)
    embeddings = Embeddings(own.size, embedding, width, facts["max_length"], dropout)
    made = TextEncoder(
        task, own, embeddings, nn.ModuleList(Layer(width, heads, inner, dropout) for _ in range(layers)), width
    )
    if start is not None and task.pretrained:
        _start_from(start, own, embeddings.tokens)
    return made


@torch.no_grad()
def _start_from(name: str, own: OwnVocabulary, tokens: nn.Embedding) -> None:
    """The principal components of a pretrained encoder's vectors of the same tokens, at the scale of new ones."""
    from stillhouse.text.encoders import token_vectors

    vectors = token_vectors(name)[torch.tensor(own.tokens)]
    centred = vectors - vectors.mean(dim=0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    narrow = min(tokens.embedding_dim, len(sizes))
    components = left[:, :narrow] * sizes[:narrow]
    tokens.weight[:, :narrow] = components / components.std() * 0.1
    tokens.weight[0] = 0.0
