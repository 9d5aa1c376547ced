"""From texts with marked spans to a dataset for tagging tokens."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.data.splitting import split_groups
from stillhouse.errors import DataError, OptionError
from stillhouse.kinds import SEQUENCE_IGNORE
from stillhouse.text.duplicates import near_duplicates
from stillhouse.text.ragged import Ragged
from stillhouse.text.reader import TextReader
from stillhouse.text.rows import TextSplit
from stillhouse.text.splits import FRACTIONS, token_facts
from stillhouse.text.tokenizer import TRAINED, Tokenizer
from stillhouse.types import DataInfo, Splits, TensorSpec

WORD = re.compile(r"\w+|[^\w\s]")
OUTSIDE = "O"
Span = tuple[int, int, str]
"""Where a span begins and ends (behind its last character), and its kind."""


def word_labels(text: str, spans: Sequence[Span]) -> list[tuple[int, int, str]]:
    """Words of a text (runs of letters and digits, and single other characters) with their labels: ``B-kind`` where a
    span begins, ``I-kind`` inside it, else ``O`` (IOB2). A word that a span touches is part of it.

    Args:
        text: the text.
        spans: marked spans; where two share a word, the one that begins first (the longer of equals) has it, and the
            other is left out.

    Returns:
        begin, end and label of each word.
    """
    words = [(found.start(), found.end()) for found in WORD.finditer(text)]
    labels = [OUTSIDE] * len(words)
    for begin, end, kind in sorted(spans, key=lambda each: (each[0], -each[1], each[2])):
        inside = [at for at, (first, last) in enumerate(words) if first < end and begin < last]
        if inside and all(labels[at] == OUTSIDE for at in inside):
            for at in inside:
                labels[at] = f"I-{kind}"
            labels[inside[0]] = f"B-{kind}"
    return [(*place, label) for place, label in zip(words, labels, strict=True)]


def token_labels(
    text: str, spans: Sequence[Span], tokenizer: Tokenizer, names: Sequence[str], *, max_length: int
) -> tuple[list[int], list[int]]:
    """Ids of a text, and a label for each: that of the word whose first token it is, else -100.

    Args:
        text: the text.
        spans: marked spans.
        tokenizer: makes the ids.
        names: names of the labels.
        max_length: ids that are kept.
    """
    ids, places = tokenizer.pieces(text, max_length=max_length)
    words, labels, at = word_labels(text, spans), [], 0
    for begin, end in places:
        label = SEQUENCE_IGNORE
        # Words behind each other: one that a token of the last word swallowed whole is passed over.
        while begin < end and at < len(words) and words[at][1] <= begin:
            at += 1
        if begin < end and at < len(words) and words[at][0] < end:
            label = names.index(words[at][2])
            at += 1
        labels.append(label)
    return ids, labels


def tagged_splits(
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
    *,
    kinds: Sequence[str],
    seed: int,
    tokenizer: str = "wordpiece",
    vocabulary: int = 8000,
    max_length: int = 128,
    fractions: Mapping[str, float] = FRACTIONS,
    groups: Sequence[str] | None = None,
    overlap: float = 0.8,
    column: str = "text",
    description: str = "",
    simulated: bool = False,
    where: str = "options of the dataset",
) -> Splits:
    """Texts whose words have labels by marked spans, split at random without near-duplicates on two sides.

    A row has ``tokens``, ``mask`` and ``target`` ``[T]``: the label of a word at its first token, -100 at all
    others. Labels are IOB2: ``O``, then ``B-`` and ``I-`` of each kind. ``DataInfo.meta["text"]`` is that of
    `stillhouse.text.text_splits`.

    Args:
        texts: the texts ``[N]``.
        spans: marked spans of each text, see `Span`.
        kinds: kinds of spans.
        seed: seed of the split.
        tokenizer: folder, hub id or ``package:folder`` of a Hugging Face tokenizer; or "wordpiece", "bpe" or
            "byte-bpe": one is trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of a text that are kept; words behind them are neither learnt nor judged, with a warning.
        fractions: share of ``val`` and ``test``; the rest is for training.
        groups: document of each text, never divided.
        overlap: overlap of the sets of words from which two texts are near-duplicates; 1: of the same words.
        column: column of new files that has the text.
        description: one line on what the rows are.
        simulated: the texts come from a generator.
        where: the file or option at fault, for errors.

    Raises:
        OptionError: an option is out of range.
        DataError: there are too few texts, none has a span, or the tokenizer cannot be had.
        MissingDependencyError: the extra ``text`` is not installed.
    """
    if not 0 < overlap <= 1 or max_length < 3:
        raise OptionError(
            f"overlap is {overlap}, max_length {max_length}", where=where, fix="above 0, up to 1; at least 3 tokens"
        )
    names = [OUTSIDE, *(f"{part}-{kind}" for kind in kinds for part in "BI")]
    family = near_duplicates(texts, least=overlap, same=[] if groups is None else [groups])
    groups = [f"text {first}" for first in np.unique(family, return_index=True)[1][family]]
    positions = split_groups(groups, fractions, seed, unit="group of like texts", where=where)
    train = positions["train"]
    made = (
        Tokenizer.train([texts[at] for at in train], kind=tokenizer, vocabulary=vocabulary)
        if tokenizer in TRAINED
        else Tokenizer.load(tokenizer)
    )
    rows = [token_labels(text, own, made, names, max_length=max_length) for text, own in zip(texts, spans, strict=True)]
    cut = sum(len(ids) == max_length for ids, _ in rows)
    if cut:
        warnings.warn(
            f"{cut} of {len(texts)} texts are cut at {max_length} tokens: what is behind them is not judged",
            stacklevel=2,
        )
    counts = np.bincount([label for at in train for label in rows[at][1] if label >= 0], minlength=len(names))
    if not counts[1:].any():
        raise DataError("no training text has a span", where=where, fix="bring texts with marked spans")
    info = DataInfo(
        inputs={"tokens": TensorSpec((-1,), "int64"), "mask": TensorSpec((-1,), "bool")},
        classes=tuple(names),
        class_counts=tuple(int(count) for count in counts),
        description=description,
        simulated=simulated,
        meta={"text": token_facts(made, tokenizer, max_length, [rows[at][0] for at in train])},
    )
    splits = {
        name: TextSplit(
            [rows[at][0] for at in part],
            {"index": torch.from_numpy(part)},
            ragged={"target": Ragged([rows[at][1] for at in part], fill=SEQUENCE_IGNORE)},
            groups=[groups[at] for at in part],
            pad=made.pad,
        )
        for name, part in positions.items()
    }
    reader = TagReader(made, max_length=max_length, column=column)
    return Splits(info=info, train=splits["train"], val=splits["val"], test=splits["test"], reader=reader)


class TagReader(TextReader):
    """Texts of a user's file for a tagger: each is told with its tokens, which labels stand beside."""

    def read(self, path: Path) -> tuple[TextSplit, dict[str, list[Any]]]:
        """See `stillhouse.text.TextReader.read`; also told by ``tokens``."""
        rows, told = super().read(path)
        ids = [rows.row(at)["tokens"].tolist() for at in range(len(rows))]
        return rows, {**told, "tokens": [self.tokenizer.words(each) for each in ids]}
