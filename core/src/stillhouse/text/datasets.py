"""Datasets of texts and of pairs of texts: the user's own, and simulated ones for tests and first steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stillhouse.data import tables
from stillhouse.errors import DataError, OptionError
from stillhouse.text.pairs import pair_splits
from stillhouse.text.reader import read_texts
from stillhouse.text.splits import text_splits
from stillhouse.text.tags import tagged_splits
from stillhouse.types import DataContext, Splits

SUBJECTS = (
    "the pump",
    "our valve",
    "a new sensor",
    "the old motor",
    "this gear",
    "the north line",
    "line seven",
    "a filter",
)
MIDDLE = ("in the plant", "since monday", "after the test", "again", "at night", "under load", "as expected", "")
WORDS = {
    "good": ("runs well", "works fine", "is quiet", "was repaired", "holds its pressure", "passed the check"),
    "bad": ("leaks oil", "is broken", "makes noise", "was damaged", "loses pressure", "failed the check"),
    "neutral": (
        "was inspected",
        "is on the list",
        "stands in hall two",
        "was painted",
        "has a number",
        "is made of steel",
    ),
}


def texts(
    context: DataContext,
    *,
    path: Path,
    text: str = "text",
    label: str = "label",
    group: str | None = None,
    unlabelled: Path | None = None,
    tokenizer: str = "wordpiece",
    vocabulary: int = 8000,
    max_length: int = 128,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    overlap: float = 0.8,
) -> Splits:
    """Your own texts with one class each, from CSV, Parquet or JSON Lines, split without near-duplicates on two sides.

    Args:
        context: what the framework gives.
        path: the file, relative to the recipe.
        text: column of the texts.
        label: column of the classes.
        group: column of documents, patients or machines that are never divided; none by default.
        unlabelled: another file, of texts that only the teacher labels; those that nearly repeat a validation or test
            text are left out.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "wordpiece", "bpe" or "byte-bpe":
            one is trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of a text that are kept.
        val_fraction: share of validation rows.
        test_fraction: share of test rows.
        overlap: overlap of the sets of words from which two texts are near-duplicates; 1: of the same words.

    Raises:
        DataError: the file cannot be used; the message names row and column.
        OptionError: an option is out of range.
    """
    file = context.base / path
    table, first = tables.read_table(file, texts=[text]), tables.first_row(file)
    tables.require_columns(table, [text, label, *([group] if group else [])], str(file))
    labels = tables.words(table[label], where=str(file), first=first)
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise DataError(f"all rows have the label '{classes[0]}'", where=str(file), fix="bring rows of two classes")
    return text_splits(
        tables.words(table[text], where=str(file), first=first),
        [classes.index(each) for each in labels],
        classes=classes,
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=max_length,
        fractions={"test": test_fraction, "val": val_fraction},
        groups=tables.words(table[group], where=str(file), first=first) if group else None,
        overlap=overlap,
        unlabelled=() if unlabelled is None else read_texts(context.base / unlabelled, text)[0],
        column=text,
        description=f"Texts of {file.name}",
        where=str(file),
    )


def synthetic_text(context: DataContext, *, rows: int = 300, vocabulary: int = 300, noise: float = 0.05) -> Splits:
    """Short made-up reports on machines, good, bad or neutral, of one to four clauses, with a tokenizer of their own.

    Args:
        context: what the framework gives.
        rows: number of texts over all splits.
        vocabulary: size of the tokenizer that is trained on the training rows.
        noise: share of wrong labels.

    Raises:
        OptionError: an option is out of range.
    """
    if rows < 60 or not 0 <= noise < 1:
        raise OptionError(
            f"rows are {rows}, noise {noise}", where="dataset 'synthetic-text'", fix="60 rows, a noise below 1"
        )
    random = np.random.default_rng(context.seed)
    classes = tuple(WORDS)
    target = random.integers(0, len(classes), rows)
    made = []
    for row, each in enumerate(target):
        # The first clause has the class, the others say nothing of it.
        said = [classes[each], *["neutral"] * random.integers(0, 4)]
        clauses = [
            f"{random.choice(SUBJECTS)} {random.choice(WORDS[name])} {random.choice(MIDDLE)}".strip() for name in said
        ]
        made.append(f"{' and '.join(clauses)} . report {row}")
    wrong = random.random(rows) < noise
    return text_splits(
        made,
        np.where(wrong, random.integers(0, len(classes), rows), target),
        classes=classes,
        seed=context.seed,
        vocabulary=vocabulary,
        max_length=48,
        overlap=1.0,
        description="Simulated reports on machines, made by a seeded generator",
        simulated=True,
        where="dataset 'synthetic-text'",
    )


def text_pairs(
    context: DataContext,
    *,
    path: Path,
    source: str = "source",
    target: str = "target",
    group: str | None = None,
    tokenizer: str = "byte-bpe",
    vocabulary: int = 8000,
    max_length: int = 128,
    max_target: int = 64,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    overlap: float = 0.8,
) -> Splits:
    """Your own pairs of a text that is read and one that is to be written, from CSV, Parquet or JSON Lines, split
    without near-duplicates of what is read on two sides.

    Args:
        context: what the framework gives.
        path: the file, relative to the recipe.
        source: column of the texts that are read.
        target: column of the texts that are to be written.
        group: column of documents, patients or machines that are never divided; none by default.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "byte-bpe", "wordpiece" or "bpe":
            one is trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of a source that are kept.
        max_target: tokens of a target that are kept, its end included.
        val_fraction: share of validation rows.
        test_fraction: share of test rows.
        overlap: overlap of the sets of words from which two sources are near-duplicates; 1: of the same words.

    Raises:
        DataError: the file cannot be used; the message names row and column.
        OptionError: an option is out of range.
    """
    file = context.base / path
    table, first = tables.read_table(file, texts=[source, target]), tables.first_row(file)
    tables.require_columns(table, [source, target, *([group] if group else [])], str(file))
    return pair_splits(
        tables.words(table[source], where=str(file), first=first),
        tables.words(table[target], where=str(file), first=first),
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=max_length,
        max_target=max_target,
        fractions={"test": test_fraction, "val": val_fraction},
        groups=tables.words(table[group], where=str(file), first=first) if group else None,
        overlap=overlap,
        column=source,
        description=f"Pairs of texts of {file.name}",
        where=str(file),
    )


def synthetic_pairs(context: DataContext, *, rows: int = 300, vocabulary: int = 400) -> Splits:
    """Short made-up reports on machines, and the order that follows from each: what is wrong is to be mended, in the
    order of the report; where nothing is wrong, nothing is to be done.

    Args:
        context: what the framework gives.
        rows: number of pairs over all splits.
        vocabulary: size of the tokenizer that is trained on the training rows.

    Raises:
        OptionError: an option is out of range.
    """
    if rows < 60:
        raise OptionError(f"rows are {rows}", where="dataset 'synthetic-pairs'", fix="60 or more")
    random = np.random.default_rng(context.seed)
    kinds = tuple(WORDS)
    sources, targets = [], []
    for row in range(rows):
        clauses, orders = [], []
        for kind in random.choice(kinds, size=random.integers(1, 4)):
            subject, state = str(random.choice(SUBJECTS)), str(random.choice(WORDS[kind]))
            clauses.append(f"{subject} {state} {random.choice(MIDDLE)}".strip())
            if kind == "bad":
                orders.append(f"Mend {subject}: {state}.")
        sources.append(f"{' and '.join(clauses)} . report {row}")
        targets.append(" ".join(orders) or "Nothing to do.")
    return pair_splits(
        sources,
        targets,
        seed=context.seed,
        vocabulary=vocabulary,
        max_length=64,
        max_target=48,
        apart={"orders": [target != "Nothing to do." for target in targets]},
        new_sources=False,
        description="Simulated reports on machines and the orders that follow, made by a seeded generator",
        simulated=True,
        where="dataset 'synthetic-pairs'",
    )


def synthetic_spans(context: DataContext, *, rows: int = 300, vocabulary: int = 300) -> Splits:
    """Short made-up reports on machines, in which what is faulty and its fault are marked.

    Args:
        context: what the framework gives.
        rows: number of texts over all splits.
        vocabulary: size of the tokenizer that is trained on the training rows.

    Raises:
        OptionError: an option is out of range.
    """
    if rows < 60:
        raise OptionError(f"rows are {rows}", where="dataset 'synthetic-spans'", fix="60 or more")
    random = np.random.default_rng(context.seed)
    texts, spans = [], []
    for row in range(rows):
        text, marked = "", []
        for kind in random.choice(tuple(WORDS), size=random.integers(1, 4)):
            subject, state = str(random.choice(SUBJECTS)), str(random.choice(WORDS[kind]))
            text += "" if not text else " and "
            if kind == "bad":
                marked.append((len(text), len(text) + len(subject), "machine"))
                marked.append((len(text) + len(subject) + 1, len(text) + len(subject) + 1 + len(state), "fault"))
            text += f"{subject} {state} {random.choice(MIDDLE)}".strip()
        texts.append(f"{text} . report {row}")
        spans.append(marked)
    return tagged_splits(
        texts,
        spans,
        kinds=("machine", "fault"),
        seed=context.seed,
        vocabulary=vocabulary,
        max_length=64,
        overlap=1.0,
        description="Simulated reports on machines with marked faults, made by a seeded generator",
        simulated=True,
        where="dataset 'synthetic-spans'",
    )
