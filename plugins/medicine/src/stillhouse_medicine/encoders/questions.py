"""Encoders of questions: from scratch, or any Hugging Face text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillhouse.text import pretrained
from stillhouse_medicine.layers import padding_of
from stillhouse_medicine.text import Tokens


class ScratchText(nn.Module):
    """A small transformer encoder (BERT from its configuration) over word numbers: ``[B, L] -> [B, L, width]``."""

    def __init__(self, words: int, length: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=words,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * width,
            max_position_embeddings=length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            pad_token_id=0,
        )
        self.model = BertModel(config, add_pooling_layer=False)
        self.width, self.pad = width, 0

    def forward(self, numbers: Tensor) -> Tensor:
        """See the class."""
        mask = ~padding_of(numbers, self.pad)
        states: Tensor = self.model(input_ids=numbers, attention_mask=mask.long()).last_hidden_state
        return states


class HuggingFaceText(nn.Module):
    """Any Hugging Face text encoder over its own tokens: ``[B, L] -> [B, L, width]``."""

    def __init__(self, name: str, pad: int) -> None:
        super().__init__()
        from transformers import AutoModel

        self.model = pretrained(AutoModel, name, "text encoder")
        self.width, self.pad = int(self.model.config.hidden_size), pad

    def forward(self, numbers: Tensor) -> Tensor:
        """See the class."""
        mask = ~padding_of(numbers, self.pad)
        states: Tensor = self.model(input_ids=numbers, attention_mask=mask.long()).last_hidden_state
        return states


def word_vectors(name: str, words: Sequence[str], width: int) -> Tensor:
    """What a pre-trained text encoder says of each word alone, as its first ``width`` principal components over the
    words: ``[len(words), width]``, of standard deviation 1. Where there are fewer components, the rest is zero.

    A network of word vectors that starts from them knows which words are alike (the static embeddings of Model2Vec,
    Tulkens & van Dongen 2024).

    Args:
        name: folder, hub id or ``package:folder`` of the encoder and its tokenizer.
        words: the vocabulary.
        width: of the vectors.

    Raises:
        DataError: the encoder or its tokenizer cannot be loaded.
        MissingDependencyError: the package is not installed.
    """
    tokens = Tokens(name, length=8)
    numbers, pad = tokens.encode(words), tokens.pad()
    encoder = HuggingFaceText(name, pad).eval()
    vectors = []
    with torch.no_grad():
        for part in numbers.split(256):
            present = (~padding_of(part, pad)).unsqueeze(-1)
            vectors.append((encoder(part) * present).sum(dim=1) / present.sum(dim=1))
    centred = torch.cat(vectors) - torch.cat(vectors).mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    found = torch.zeros(len(words), width)
    components = centred @ directions[:width].T
    found[:, : components.shape[1]] = components / components.std()
    return found
