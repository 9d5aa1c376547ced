"""Encoders of questions: from scratch, or any Hugging Face text encoder."""

from __future__ import annotations

from torch import Tensor, nn

from stillhouse_medicine.layers import padding_of
from stillhouse_medicine.text import pretrained


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
