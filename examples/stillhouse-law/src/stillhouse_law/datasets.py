"""Datasets: simulated cases, and documents of the user's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from stillhouse.errors import DataError, OptionError
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit

from stillhouse_law.simulator import OUTCOMES, make_case
from stillhouse_law.text import TextReader, Vocabulary, read_table

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
        simulated=True,
    )


def documents(
    context: DataContext,
    *,
    path: Path,
    text: str = "text",
    label: str = "label",
    length: int = 256,
    held_out: float = 0.2,
) -> Splits:
    """Documents of your own, split at random into training, validation and test rows.

    Args:
        context: gives the folder that relative paths are relative to, and the seed of the split.
        path: a CSV file.
        text: column with the text.
        label: column with the label.
        length: words of a document that are kept.
        held_out: share of the rows for validation, and the same for testing.

    Raises:
        DataError: the file cannot be used, or is too small to be split.
    """
    rows = read_table(context.base / path.expanduser(), [text, label])
    labels = sorted({row[label] for row in rows})
    size = int(len(rows) * held_out)
    if len(labels) < 2 or size < 1 or 2 * size >= len(rows):
        raise DataError(
            f"{len(rows)} rows with {len(labels)} labels cannot be split with held_out={held_out}",
            where=str(path),
            fix="give at least two labels, and rows for all three splits",
        )
    order = list(range(len(rows)))
    random.Random(context.seed).shuffle(order)
    parts = [order[2 * size :], order[:size], order[size : 2 * size], []]
    return _splits(
        [row[text] for row in rows],
        [labels.index(row[label]) for row in rows],
        labels,
        parts,
        length=length,
        description=f"{len(rows)} documents of {path.name}",
        column=text,
    )


def _splits(
    texts: Sequence[str],
    targets: Sequence[int],
    classes: Sequence[str],
    parts: Sequence[Sequence[int]],
    *,
    length: int,
    description: str,
    reasons: Sequence[str] = (),
    simulated: bool = False,
    column: str = "text",
) -> Splits:
    """Splits from the positions of their rows: training, validation, test and unlabelled ones."""
    known = [source[at] for source in (texts, reasons) if source for at in parts[0]]
    vocabulary = Vocabulary.of(known, length=length)
    encoded, target = vocabulary.encode(texts), torch.tensor(targets)
    if reasons:
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
            simulated=simulated,
            meta={"vocabulary": vocabulary.size},
        ),
        train=train,
        val=val,
        test=test,
        unlabelled=unlabelled if len(unlabelled) else None,
        reader=TextReader(vocabulary, column),
    )
