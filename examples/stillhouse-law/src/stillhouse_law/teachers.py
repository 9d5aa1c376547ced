"""Teachers: a transformer encoder of the library transformers, built from a configuration: nothing is downloaded."""

from __future__ import annotations

from stillhouse.types import Task
from torch import Tensor, nn


class Encoder(nn.Module):
    """DistilBERT from random weights, the mean of its tokens to the prediction.

    It reads the reasons of a judgment where the dataset has them, and the facts where it does not.

    Args:
        task: what the framework gives: the inputs, and the width of the prediction.
        width: features of a token; a multiple of ``heads``.
        layers: encoder layers.
        heads: attention heads.
        dropout: share of activations dropped while training.
    """

    def __init__(self, task: Task, *, width: int = 64, layers: int = 2, heads: int = 4, dropout: float = 0.1) -> None:
        from transformers import DistilBertConfig, DistilBertModel

        super().__init__()
        config = DistilBertConfig(
            vocab_size=task.info.meta["vocabulary"],
            max_position_embeddings=task.inputs["input_ids"].shape[0],
            dim=width,
            hidden_dim=4 * width,
            n_layers=layers,
            n_heads=heads,
            dropout=dropout,
            attention_dropout=dropout,
            pad_token_id=0,
            initializer_range=width**-0.5,  # the usual 0.02 is for models of hundreds of features
        )
        self.encoder = DistilBertModel(config)
        self.output = nn.Linear(width, task.outputs)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        reasons_ids: Tensor | None = None,
        reasons_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[B, task.outputs]`` for word numbers and masks ``[B, L]``."""
        if reasons_ids is not None and reasons_mask is not None:
            input_ids, attention_mask = reasons_ids, reasons_mask
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].float()
        return self.output((states * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1))
