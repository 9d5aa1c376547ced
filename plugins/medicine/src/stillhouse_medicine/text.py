"""Questions as numbers: a word vocabulary of one's own, and tokens of a Hugging Face encoder."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from stillhouse.errors import DataError, MissingDependencyError

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


def locate_pretrained(name: str) -> str:
    """What ``from_pretrained`` takes: a folder, a hub id, or ``package:folder`` inside an installed package.

    Raises:
        MissingDependencyError: the package is not installed.
        DataError: the folder is not in the package.
    """
    package, colon, folder = name.partition(":")
    if not colon or Path(name).exists():
        return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            f"the pre-trained encoder '{name}' is in a package that is not installed",
            where=package,
            fix=f"pip install {package.replace('_', '-')}",
        )
    path = Path(found.submodule_search_locations[0]) / folder
    if not path.is_dir():
        raise DataError(f"package '{package}' has no folder '{folder}'", where=name, fix="correct the folder's name")
    return str(path)


def pretrained(loader: Any, name: str, what: str) -> Any:
    """``loader.from_pretrained`` of a folder, hub id or ``package:folder``; weights are read from safetensors only.

    Raises:
        DataError: nothing of that name can be had.
        MissingDependencyError: see `locate_pretrained`.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    located = locate_pretrained(name)
    logging.disable_progress_bar()  # weights load in a moment, and the bar would tear those of the run
    options = {} if "Tokenizer" in loader.__name__ else {"use_safetensors": True}
    try:
        return loader.from_pretrained(located, **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"the {what} '{name}' cannot be loaded: {reason}",
            where=name,
            fix="give a folder with config.json, weights in safetensors and a tokenizer, or a hub id that can be "
            "reached",
        ) from error


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
