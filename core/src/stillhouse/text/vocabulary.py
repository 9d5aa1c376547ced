"""A smaller vocabulary of a model's own, inside that of the dataset's tokenizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.types import Task


def text_facts(task: Task, who: str) -> dict[str, Any]:
    """What a dataset of texts tells of its tokens, see `stillhouse.text.text_splits`.

    Raises:
        IncompatibleError: the dataset has no texts.
    """
    facts = task.info.meta.get("text")
    if not isinstance(facts, dict) or not {"tokens", "mask"} <= set(task.inputs):
        raise IncompatibleError(
            f"{who} takes tokens with a mask, the dataset has {', '.join(task.inputs) or 'no inputs'}",
            where="the dataset's inputs",
            fix="choose a dataset of texts, made by stillhouse.text.text_splits",
        )
    return facts


class OwnVocabulary(nn.Module):
    """The most frequent tokens of the training rows under numbers of their own: 0 padding, 1 all others.

    Args:
        facts: see `text_facts`.
        size: largest number of tokens, the two included.

    Raises:
        OptionError: there is no room for a token beside the two.
    """

    number: Tensor

    def __init__(self, facts: dict[str, Any], size: int) -> None:
        super().__init__()
        if size < 3:
            raise OptionError(f"vocabulary is {size}", where="model", fix="at least 3 tokens")
        special = {facts["pad"], facts["unknown"]}
        kept = [token for token in facts["seen"] if token not in special][: size - 2]
        self.tokens = (facts["pad"], facts["unknown"], *kept)
        number = torch.ones(facts["vocabulary"], dtype=torch.int64)
        number[facts["pad"]] = 0
        number[torch.tensor(kept, dtype=torch.int64)] = torch.arange(2, 2 + len(kept))
        # Not saved: it is a function of the dataset's facts, which the run folder has.
        self.register_buffer("number", number, persistent=False)

    @property
    def size(self) -> int:
        """Numbers in use."""
        return len(self.tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Own numbers of the tokenizer's ``[B, T]``."""
        return self.number[tokens]
