"""Questions as numbers: a word vocabulary of one's own, and tokens of a Hugging Face encoder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from stillhouse.text import pretrained

WORD = re.compile(r"[^\W_]+", re.UNICODE)
PAD, UNKNOWN = 0, 1


def words(text: str) -> list[str]:
    """The words and numbers of a text in lower case, without punctuation."""
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of words; 0 is padding, 1 a word that is not known.

    Args:
        known: the words, the first of which has number 2.
        length: words of a question that are kept.
    """

    known: tuple[str, ...]
    length: int

    @classmethod
    def build(cls, texts: Iterable[str], *, length: int, min_count: int = 2) -> Self:
        """Words that occur at least ``min_count`` times in ``texts`` (of training rows), the most frequent first.

        Rarer words share the number of unknown ones, so that this number is trained.
        """
        counts = Counter(word for text in texts for word in words(text))
        kept = [word for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        return cls(tuple(word for word in kept if counts[word] >= min_count), length)

    @property
    def size(self) -> int:
        """Numbers in use, padding and unknown words included."""
        return len(self.known) + 2

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Numbers ``[N, length]``, int64, padded at the end."""
        numbers = {word: number for number, word in enumerate(self.known, start=2)}
        rows = torch.full((len(texts), self.length), PAD, dtype=torch.int64)
        for position, text in enumerate(texts):
            # A question without any word still needs one number: attention over nothing is not defined.
            found = [numbers.get(word, UNKNOWN) for word in words(text)[: self.length]] or [UNKNOWN]
            rows[position, : len(found)] = torch.tensor(found)
        return rows

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"known": list(self.known), "length": self.length}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(tuple(state["known"]), int(state["length"]))


@dataclass(frozen=True)
class Tokens:
    """Token numbers of a Hugging Face tokenizer.

    Args:
        name: folder, hub id, or ``package:folder``.
        length: tokens of a question that are kept.
    """

    name: str
    length: int

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return pretrained(AutoTokenizer, self.name, "tokenizer")

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Numbers ``[N, length]``, int64, padded with the tokenizer's own padding.

        Raises:
            DataError: the tokenizer cannot be loaded.
        """
        found = self._tokenizer()(
            list(texts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        ids: Tensor = found["input_ids"]
        return ids

    def pad(self) -> int:
        """The number of padding."""
        return int(self._tokenizer().pad_token_id or 0)
