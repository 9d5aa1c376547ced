"""Attention whose scores can be tapped."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME = "stillhouse"
"""Name of `attend` among the attention functions of transformers."""
_PAIRS = ({"query", "key"}, {"q_lin", "k_lin"}, {"q_proj", "k_proj"})


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention. Only while somebody listens to ``module.scores``, an identity, are the scores
    before the softmax ``[B, H, T, T]`` computed and sent through it; else the fused kernel never has them in memory.

    Args:
        module: the layer; ``scores`` is put there by `add_scores`.
        query: ``[B, H, T, D]``.
        key: ``[B, H, T, D]``.
        value: ``[B, H, T, D]``.
        attention_mask: bool, true where a key may be looked at; broadcasts to ``[B, H, T, T]``.
        scaling: of the scores; ``D ** -0.5`` by default.
        dropout: probability of dropping a weight.

    Returns:
        what was looked up, ``[B, T, H, D]``, and the weights where they were computed.
    """
    scores = getattr(module, "scores", None)
    if scores is None or not scores._forward_hooks:
        found = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
        return found.transpose(1, 2).contiguous(), None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    raw: Tensor = scores(query @ key.transpose(2, 3) * scaling)
    if attention_mask is not None:
        raw = raw.masked_fill(~attention_mask, torch.finfo(raw.dtype).min)
    weights = F.dropout(raw.softmax(dim=-1), p=dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def add_scores(model: nn.Module) -> None:
    """Give every attention layer of a model an identity ``scores`` to tap; it has no weights."""
    for module in list(model.modules()):
        children = {name for name, _ in module.named_children()}
        if any(pair <= children for pair in _PAIRS):
            module.add_module("scores", nn.Identity())


def register() -> None:
    """Let models of transformers use `attend`, by `NAME`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
