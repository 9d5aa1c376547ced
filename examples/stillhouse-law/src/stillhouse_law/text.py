"""Words as numbers, and new files of texts for ``stillhouse predict``."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from stillhouse.errors import DataError
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
class TextReader:
    """Reads new texts as the training texts were read.

    Args:
        vocabulary: that of the training texts.
        column: name of the CSV column that holds the text.
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
        """Rows of a CSV file, and their texts to tell them apart.

        Raises:
            DataError: the file cannot be read, has no such column, or no rows.
        """
        texts = [row[self.column] for row in read_table(path, [self.column])]
        return TensorSplit(self.vocabulary.encode(texts)), {self.column: texts}


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file that has these columns, none of them empty.

    Raises:
        DataError: which file, row or column is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            header, rows = table.fieldnames or [], list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path.name}' cannot be read: {error}", where=str(path), fix="give a CSV in UTF-8") from error
    for column in columns:
        if column not in header:
            raise DataError(
                f"'{path.name}' has no column '{column}'", where=str(path), fix=f"its columns are {', '.join(header)}"
            )
        for number, row in enumerate(rows, start=2):
            if not (row[column] or "").strip():
                raise DataError(
                    f"row {number} of '{path.name}' has no {column}", where=str(path), fix="fill it in, or drop the row"
                )
    if not rows:
        raise DataError(f"'{path.name}' has no rows", where=str(path), fix="give at least one row below the header")
    return rows
