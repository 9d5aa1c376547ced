"""Datasets: simulated cases, and documents of the user's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from stillhouse.errors import DataError, OptionError
from stillhouse.text import read_texts, text_splits
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit

from stillhouse_law.simulator import OUTCOMES, make_case
from stillhouse_law.text import FactsReader, Vocabulary

VALIDATION, TEST = 400, 1000
"""Simulated cases held out, whatever the options."""


def judgments_sim(
    context: DataContext, *, cases: int = 400, unlabelled: int = 2000, noise: float = 0.3, length: int = 48
) -> Splits:
    """Simulated civil cases; not real data. A share of the labels is wrong, as labels read off by hand are.

    The rows hold the facts (``input_ids``, ``attention_mask``) and the reasons of the judgment (``reasons_ids``,
    ``reasons_mask``). Reasons are written after the decision, so that only a teacher may read them.

    Args:
        context: gives the seed.
        cases: labelled cases for training.
        unlabelled: further cases without an outcome, which only soft losses see.
        noise: share of training and validation labels that are drawn at random.
        length: words of a case that are kept.

    Raises:
        OptionError: an option is out of range.
    """
    if cases < 50 or unlabelled < 0 or not 0 <= noise < 1 or length < 1:
        raise OptionError(
            f"cases is {cases}, unlabelled {unlabelled}, noise {noise}, length {length}",
            where="dataset 'law/judgments-sim'",
            fix="cases from 50, unlabelled from 0, noise from 0 to below 1, length from 1",
        )
    draw = random.Random(context.seed)
    made = [make_case(draw) for _ in range(cases + VALIDATION + TEST + unlabelled)]
    noisy = range(cases + VALIDATION)
    outcomes = [
        draw.randrange(len(OUTCOMES)) if at in noisy and draw.random() < noise else case.outcome
        for at, case in enumerate(made)
    ]
    bounds = [0, cases, cases + VALIDATION, cases + VALIDATION + TEST, len(made)]
    parts = [list(range(low, high)) for low, high in zip(bounds, bounds[1:], strict=False)]
    description = f"simulated civil cases (not real data), {noise:.0%} of the training labels drawn at random"
    return _splits(
        [case.facts for case in made],
        outcomes,
        OUTCOMES,
        parts,
        reasons=[case.reasons for case in made],
        length=length,
        description=description,
    )


def facts_sim(context: DataContext, *, cases: int = 800, noise: float = 0.3, length: int = 64) -> Splits:
    """Facts of simulated civil cases, as texts for the core's own models; not real data.

    Cases with the same words are kept in one split. All labels are as noisy as those of ``law/judgments-sim``, but for
    the test rows.

    Args:
        context: gives the seed.
        cases: cases over all splits.
        noise: share of training and validation labels that are drawn at random.
        length: tokens of a case that are kept.

    Raises:
        OptionError: an option is out of range.
    """
    if cases < 100 or not 0 <= noise < 1 or length < 8:
        raise OptionError(
            f"cases is {cases}, noise {noise}, length {length}",
            where="dataset 'law/facts-sim'",
            fix="cases from 100, noise from 0 to below 1, length from 8",
        )
    draw = random.Random(context.seed)
    made = list({case.facts: case for case in (make_case(draw) for _ in range(cases))}.values())
    train, val = int(0.5 * len(made)), int(0.7 * len(made))
    outcomes = [
        draw.randrange(len(OUTCOMES)) if at < val and draw.random() < noise else case.outcome
        for at, case in enumerate(made)
    ]
    return text_splits(
        [case.facts for case in made],
        outcomes,
        classes=OUTCOMES,
        seed=context.seed,
        vocabulary=400,
        max_length=length,
        parts={"train": range(train), "val": range(train, val), "test": range(val, len(made))},
        description=f"facts of simulated civil cases (not real data), {noise:.0%} of the training labels at random",
        simulated=True,
        where="dataset 'law/facts-sim'",
    )


def documents(
    context: DataContext,
    *,
    path: Path,
    text: str = "text",
    label: str = "label",
    tokenizer: str = "wordpiece",
    vocabulary: int = 8000,
    length: int = 256,
    held_out: float = 0.2,
) -> Splits:
    """Documents of your own, split at random into training, validation and test rows; those that repeat each other stay
    in one split.

    Args:
        context: gives the folder that relative paths are relative to, and the seed of the split.
        path: a CSV, Parquet or JSON Lines file.
        text: column with the text.
        label: column with the label.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "wordpiece" or "bpe": one is
            trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        length: tokens of a document that are kept.
        held_out: share of the rows for validation, and the same for testing.

    Raises:
        DataError: the file cannot be used, or is too small to be split.
        OptionError: an option is out of range.
    """
    file = context.base / path.expanduser()
    texts, labels = read_texts(file, text)[0], read_texts(file, label)[0]
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise DataError(f"all rows have the label '{classes[0]}'", where=str(path), fix="give at least two labels")
    return text_splits(
        texts,
        [classes.index(each) for each in labels],
        classes=classes,
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=length,
        fractions={"val": held_out, "test": held_out},
        column=text,
        description=f"{len(texts)} documents of {path.name}",
        where=str(file),
    )


def _splits(
    texts: Sequence[str],
    targets: Sequence[int],
    classes: Sequence[str],
    parts: Sequence[Sequence[int]],
    *,
    length: int,
    description: str,
    reasons: Sequence[str],
) -> Splits:
    """Splits from the positions of their rows: training, validation, test and unlabelled ones."""
    known = [source[at] for source in (texts, reasons) for at in parts[0]]
    vocabulary = Vocabulary.of(known, length=length)
    encoded, target = vocabulary.encode(texts), torch.tensor(targets)
    found = vocabulary.encode(reasons)
    encoded |= {"reasons_ids": found["input_ids"], "reasons_mask": found["attention_mask"]}
    train, val, test, unlabelled = (
        TensorSplit({name: values[rows] for name, values in (*encoded.items(), ("target", target))} | {"index": rows})
        for rows in (torch.tensor(part, dtype=torch.int64) for part in parts)
    )
    return Splits(
        info=DataInfo(
            inputs={name: TensorSpec((length,), "int64") for name in encoded},
            classes=tuple(classes),
            class_counts=tuple(torch.bincount(target[list(parts[0])], minlength=len(classes)).tolist()),
            description=description,
            simulated=True,
            meta={"vocabulary": vocabulary.size},
        ),
        train=train,
        val=val,
        test=test,
        unlabelled=unlabelled if len(unlabelled) else None,
        reader=FactsReader(vocabulary),
    )
