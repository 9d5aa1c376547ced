"""Words as numbers, for rows that hold two texts: facts, and the reasons that only a teacher may read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from stillhouse.text import read_texts
from stillhouse.types import Batch, Split, TensorSplit

WORD = re.compile(r"[^\W_]+")
PAD, UNKNOWN = 0, 1


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of words: 0 is padding, 1 a word that is not known, and the known ones follow.

    Args:
        words: the known words.
        length: words of a text that are kept.
    """

    words: tuple[str, ...]
    length: int

    @classmethod
    def of(cls, texts: Iterable[str], *, length: int, least: int = 2) -> Self:
        """The words that occur at least ``least`` times in ``texts``, which must be training texts only."""
        counts = Counter(word for text in texts for word in WORD.findall(text.lower()))
        return cls(tuple(sorted(word for word, count in counts.items() if count >= least)), length)

    @property
    def size(self) -> int:
        """Numbers in use."""
        return len(self.words) + 2

    def encode(self, texts: Sequence[str]) -> Batch:
        """``input_ids`` and ``attention_mask``, both int64 ``[N, length]``."""
        number = {word: at for at, word in enumerate(self.words, start=2)}
        ids = torch.full((len(texts), self.length), PAD)
        for row, text in enumerate(texts):
            # A text without a single word still needs one number: attention over nothing is not defined.
            found = [number.get(word, UNKNOWN) for word in WORD.findall(text.lower())] or [UNKNOWN]
            ids[row, : len(found)] = torch.tensor(found[: self.length])
        return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


@dataclass(frozen=True)
class FactsReader:
    """Reads the facts of new cases as those of the training rows were read.

    Args:
        vocabulary: that of the training texts.
        column: name of the column that holds the facts.
    """

    vocabulary: Vocabulary
    column: str = "text"

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        vocabulary = state["vocabulary"]
        return cls(Vocabulary(tuple(vocabulary["words"]), vocabulary["length"]), state["column"])

    def read(self, path: Path) -> tuple[Split, dict[str, list[Any]]]:
        """Rows of a file (``.csv``, ``.parquet``, ``.jsonl``, or lines of a ``.txt``), and their texts to tell them
        apart.

        Raises:
            DataError: the file cannot be read, has no such column, or a text is empty.
        """
        texts, _ = read_texts(path, self.column)
        return TensorSplit(self.vocabulary.encode(texts)), {self.column: texts}
