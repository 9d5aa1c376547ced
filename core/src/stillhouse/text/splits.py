"""From texts and labels to a dataset: split, then tokenized, with what the models need to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stillhouse.data.splitting import split_groups
from stillhouse.errors import DataError, OptionError
from stillhouse.text.duplicates import near_duplicates
from stillhouse.text.reader import TextReader
from stillhouse.text.rows import TextSplit
from stillhouse.text.tokenizer import TRAINED, Tokenizer
from stillhouse.types import DataInfo, Splits, TensorSpec

FRACTIONS = {"test": 0.2, "val": 0.1}


def token_facts(made: Tokenizer, name: str, max_length: int, training: Iterable[Sequence[int]]) -> dict[str, Any]:
    """What models are told of tokens, see `text_splits`.

    Args:
        made: the tokenizer.
        name: how the user named it.
        max_length: tokens of a text that are kept.
        training: ids of the training rows.
    """
    seen = Counter(token for row in training for token in row)
    return {
        "vocabulary": made.size,
        "pad": made.pad,
        "unknown": made.unknown,
        "mask": made.mask,
        "special": list(made.special),
        "max_length": max_length,
        "tokenizer": name,
        "seen": [token for token, _ in sorted(seen.items(), key=lambda each: (-each[1], each[0]))],
    }


def text_splits(
    texts: Sequence[str],
    target: Sequence[int] | np.ndarray,
    *,
    classes: Sequence[str],
    seed: int,
    tokenizer: str = "wordpiece",
    vocabulary: int = 8000,
    max_length: int = 128,
    fractions: Mapping[str, float] = FRACTIONS,
    groups: Sequence[str] | None = None,
    parts: Mapping[str, Sequence[int]] | None = None,
    overlap: float = 0.8,
    unlabelled: Sequence[str] = (),
    column: str = "text",
    description: str = "",
    simulated: bool = False,
    where: str = "options of the dataset",
) -> Splits:
    """Texts with one class each, split at random without near-duplicates on two sides, and tokenized.

    Families of texts (`near_duplicates`, and the texts of one group) stay in one split; they are drawn class by class,
    a family by the class of its first text. ``DataInfo.meta["text"]`` has ``vocabulary`` (number of tokens), ``pad``,
    ``unknown`` and ``mask`` (ids), ``special`` (all ids that are no part of a text), ``max_length``, ``tokenizer`` and
    ``seen``: the tokens of the training rows, the most frequent first.

    Args:
        texts: the texts ``[N]``.
        target: class of each ``[N]``, a position in ``classes``.
        classes: names of the classes.
        seed: seed of the split.
        tokenizer: folder, hub id or ``package:folder`` of a Hugging Face tokenizer; or "wordpiece" or "bpe": one is
            trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of a text that are kept, special ones included.
        fractions: share of ``val`` and ``test``; the rest is for training.
        groups: document (patient, author, machine) of each text, never divided.
        parts: positions of ``train``, ``val`` and ``test``, where the protocol gives them; texts that repeat each other
            are then not looked for, and ``groups`` are checked, not kept together.
        overlap: overlap of the sets of words from which two texts are near-duplicates; 1: of the same words.
        unlabelled: texts that nobody has labelled; near-duplicates of validation and test texts are left out.
        column: column of new files that has the text.
        description: one line on what the rows are.
        simulated: the texts come from a generator.
        where: the file or option at fault, for errors.

    Raises:
        OptionError: an option is out of range.
        DataError: there are too few texts of a class, or the tokenizer cannot be had.
        MissingDependencyError: the extra ``text`` is not installed.
    """
    if not 0 < overlap <= 1:
        raise OptionError(f"overlap is {overlap}", where=where, fix="a number above 0, up to 1")
    if max_length < 3:
        raise OptionError(f"max_length is {max_length}", where=where, fix="at least 3: two special tokens and one more")
    target = np.asarray(target, dtype=np.int64)
    if parts is not None:
        positions = {name: np.asarray(part, dtype=np.int64) for name, part in parts.items()}
    else:
        family = near_duplicates(texts, least=overlap, same=[] if groups is None else [groups])
        groups = [f"text {first}" for first in np.unique(family, return_index=True)[1][family]]
        labels = [classes[each] for each in target]
        positions = split_groups(groups, fractions, seed, classes=labels, unit="group of like texts", where=where)
    made = (
        Tokenizer.train([texts[at] for at in positions["train"]], kind=tokenizer, vocabulary=vocabulary)
        if tokenizer in TRAINED
        else Tokenizer.load(tokenizer)
    )
    ids = made.encode(texts, max_length=max_length)
    info = DataInfo(
        inputs={"tokens": TensorSpec((-1,), "int64"), "mask": TensorSpec((-1,), "bool")},
        classes=tuple(classes),
        class_counts=_class_counts(target[positions["train"]], classes, where),
        description=description,
        simulated=simulated,
        meta={"text": token_facts(made, tokenizer, max_length, [ids[at] for at in positions["train"]])},
    )
    splits = {
        name: TextSplit(
            [ids[at] for at in part],
            {"target": torch.from_numpy(target[part]), "index": torch.from_numpy(part)},
            groups=None if groups is None else [groups[at] for at in part],
            pad=made.pad,
        )
        for name, part in positions.items()
    }
    reader = TextReader(made, max_length=max_length, column=column, texts=[*texts, *unlabelled])
    further = _unlabelled(texts, unlabelled, [*positions["val"], *positions["test"]], overlap, made, max_length)
    return Splits(
        info=info, train=splits["train"], val=splits["val"], test=splits["test"], unlabelled=further, reader=reader
    )


def _class_counts(target: np.ndarray, classes: Sequence[str], where: str) -> tuple[int, ...]:
    """Training texts of each class.

    Raises:
        DataError: a class has none.
    """
    counts = np.bincount(target, minlength=len(classes))
    if (counts == 0).any():
        raise DataError(
            f"class '{classes[int(np.argmin(counts))]}' has no training texts",
            where=where,
            fix="bring more texts of that class, or lower the fractions",
        )
    return tuple(int(count) for count in counts)


def _unlabelled(
    texts: Sequence[str],
    unlabelled: Sequence[str],
    held_out: Sequence[int],
    overlap: float,
    tokenizer: Tokenizer,
    max_length: int,
) -> TextSplit | None:
    """Texts without labels that are no near-duplicates of those held out; their ids follow those of the others."""
    if not unlabelled:
        return None
    family = near_duplicates([*texts, *unlabelled], least=overlap)
    new = np.flatnonzero(~np.isin(family[len(texts) :], family[np.asarray(held_out)]))
    if not len(new):
        return None
    ids = tokenizer.encode([unlabelled[at] for at in new.tolist()], max_length=max_length)
    return TextSplit(ids, {"index": torch.from_numpy(len(texts) + new)}, pad=tokenizer.pad)
