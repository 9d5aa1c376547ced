"""New texts for a trained student, from tables, JSON Lines and text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse.text.rows import TextSplit
from stillhouse.text.tokenizer import Tokenizer
from stillhouse.types import Batch

LINES = (".txt",)
"""Types of files with a text on each line."""


def read_texts(path: Path, column: str) -> tuple[list[str], list[int]]:
    """The texts of a file, and the number of each as an editor shows it: the column of a table (``.csv``, ``.parquet``,
    ``.jsonl``), or the lines of a ``.txt`` file, of which empty ones are left out.

    Raises:
        DataError: the file cannot be read, has no such column, or a text is empty.
    """
    if path.suffix.lower() not in LINES:
        table, first = tables.read_table(path, texts=[column]), tables.first_row(path)
        tables.require_columns(table, [column], str(path))
        found = tables.words(table[column], where=str(path), first=first)
        return found, list(range(first, first + len(found)))
    if not path.is_file():
        raise DataError("the file does not exist", where=str(path), fix="correct the path")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"the file is not UTF-8: {error}", where=str(path), fix="save it as UTF-8") from error
    rows = [number for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError("the file has no text", where=str(path), fix="write a text on each line")
    return [lines[row - 1].strip() for row in rows], rows


class TextReader:
    """Texts of a user's file, tokenized as the training rows were; a `stillhouse.types.Reader`.

    Args:
        tokenizer: of the training rows.
        max_length: tokens of a text that are kept.
        column: column of tables that has the text.
        texts: what `describe` gives word for word; no part of the state.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, max_length: int, column: str = "text", texts: Sequence[str] = ()
    ) -> None:
        self.tokenizer, self.max_length, self.column = tokenizer, max_length, column
        self._texts, self._by_tokens = texts, dict[bytes, str]()

    def state(self) -> dict[str, Any]:
        """JSON-ready state, the whole tokenizer included."""
        return {**self.tokenizer.state(), "max_length": self.max_length, "column": self.column}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(Tokenizer.from_state(state), max_length=state["max_length"], column=state["column"])

    def describe(self, batch: Batch) -> list[dict[str, Any]]:
        """See `stillhouse.types.DescribingReader`: ``text`` of each row, as it was written where it is one of the
        dataset's, else (texts that an augmenter made) put together from the tokens."""
        if self._texts and not self._by_tokens:
            encoded = self.tokenizer.encode(self._texts, max_length=self.max_length)
            self._by_tokens = {_key(ids): text for ids, text in zip(encoded, self._texts, strict=True)}
        tokens, mask = batch["tokens"].cpu(), batch["mask"].cpu()
        rows = [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)]
        return [{"text": self._by_tokens.get(_key(ids)) or self.tokenizer.decode(ids)} for ids in rows]

    def read(self, path: Path) -> tuple[TextSplit, dict[str, list[Any]]]:
        """Rows of the file; each is told by the number of its ``row`` and its text.

        Raises:
            DataError: see `read_texts`.
        """
        texts, rows = read_texts(Path(path), self.column)
        return self.rows_of(texts), {"row": rows, "text": texts}

    def rows_of(self, texts: Sequence[str]) -> TextSplit:
        """The texts, tokenized as the training rows were, as rows without a target."""
        ids = self.tokenizer.encode(texts, max_length=self.max_length)
        return TextSplit(ids, {}, pad=self.tokenizer.pad)


def _key(ids: Sequence[int]) -> bytes:
    return np.asarray(ids, dtype=np.int32).tobytes()
