"""Sentences of financial news with their sentiment: the Financial PhraseBank, or a generated sample."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from stillhouse.errors import DataError, OptionError
from stillhouse.text import text_splits
from stillhouse.types import DataContext, Splits

CLASSES = ("negative", "neutral", "positive")
HOMEPAGE = "https://www.researchgate.net/publication/251231364_FinancialPhraseBank-v10"

COMPANIES = ("Aldra", "Bergvik Steel", "Corvane", "Delmar Foods", "Eltora Bank", "Fenwick Paper", "Gridline", "Halvor")
WELCOME = ("net sales", "operating profit", "the order book", "earnings per share", "the margin", "cash flow")
UNWELCOME = ("raw material costs", "net debt", "the operating loss", "bad loans", "complaints", "the delay")
UP = ("rose clearly", "grew further", "was higher than expected", "climbed to a record", "increased")
DOWN = ("fell clearly", "declined", "was lower than expected", "dropped to its lowest level", "shrank")
LEVEL = ("will be published", "is reported in euros", "was discussed", "is calculated as before", "is explained")
PERIODS = ("in the first quarter", "in the second half", "from January to June", "this year", "in the third quarter")
ENDS = ("according to the statement", "at the annual meeting", "on its web site", "in a call with analysts", "")


def news(
    context: DataContext,
    *,
    agreement: Literal["50", "66", "75", "all"] = "50",
    path: Path | None = None,
    tokenizer: str = "wordpiece",
    vocabulary: int = 4000,
    max_length: int = 96,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    overlap: float = 0.8,
) -> Splits:
    """The Financial PhraseBank: sentences of news, negative, neutral or positive for who holds the share.

    It has no split of its own. Here sentences are drawn class by class with the recipe's ``data_seed``, and those that
    repeat each other, or share most of their words, stay in one split. Its four files are nested: a model that was
    trained on one must not be tested on another.

    Args:
        context: what the framework gives.
        agreement: least share of the annotators that agreed on a sentence, in percent: one of the four files.
        path: folder of the files; by default finance/financial-phrasebank in STILLHOUSE_DATA.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "wordpiece" or "bpe": one is
            trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of a sentence that are kept.
        val_fraction: share of validation rows.
        test_fraction: share of test rows.
        overlap: overlap of the sets of words from which two sentences are near-duplicates; 1: of the same words.

    Raises:
        DataError: a file is not there, or a line is not a sentence and its sentiment.
        OptionError: an option is out of range.
    """
    folder = context.base / path if path is not None else context.root.parent / "financial-phrasebank"
    file = folder / f"Sentences_{agreement.capitalize()}Agree.txt"
    sentences, labels = read_phrasebank(file)
    return text_splits(
        sentences,
        [CLASSES.index(label) for label in labels],
        classes=CLASSES,
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=max_length,
        fractions={"test": test_fraction, "val": val_fraction},
        overlap=overlap,
        column="sentence",
        description=f"Financial PhraseBank, {file.stem}",
        where=str(file),
    )


def news_sim(context: DataContext, *, rows: int = 240, tokenizer: str = "wordpiece", vocabulary: int = 400) -> Splits:
    """Generated sentences of news: they show that all works, and nothing of how well.

    Args:
        context: what the framework gives.
        rows: number of sentences over all splits.
        tokenizer: as for finance/news.
        vocabulary: size of a tokenizer that is trained.

    Raises:
        OptionError: there are too few rows.
    """
    if rows < 60:
        raise OptionError(f"rows are {rows}", where="dataset 'finance/news-sim'", fix="at least 60")
    sentences, labels = sample(rows, context.seed)
    return text_splits(
        sentences,
        [CLASSES.index(label) for label in labels],
        classes=CLASSES,
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=48,
        overlap=1.0,
        column="sentence",
        description="Generated sentences of news",
        simulated=True,
        where="dataset 'finance/news-sim'",
    )


def read_phrasebank(file: Path) -> tuple[list[str], list[str]]:
    """Sentences and sentiments of a file of the PhraseBank: ``sentence@sentiment`` a line, Latin-1.

    Raises:
        DataError: the file is not there, or a line is something else.
    """
    if not file.is_file():
        raise DataError(
            "the Financial PhraseBank is not there",
            where=str(file),
            fix=f"get FinancialPhraseBank-v1.0 ({HOMEPAGE}) and put its files into that folder, or set dataset.path",
        )
    sentences, labels = [], []
    for number, line in enumerate(file.read_text(encoding="latin-1").splitlines(), start=1):
        if not line.strip():
            continue
        sentence, at, label = line.rpartition("@")
        if not at or label.strip() not in CLASSES or not sentence.strip():
            raise DataError(
                f"line {number} is not a sentence, '@', and one of {', '.join(CLASSES)}",
                where=str(file),
                fix="get the file again: it is Latin-1, with a sentence on each line",
            )
        sentences.append(sentence.strip())
        labels.append(label.strip())
    if not sentences:
        raise DataError("the file has no sentences", where=str(file), fix="get it again")
    return sentences, labels


def sample(rows: int, seed: int) -> tuple[list[str], list[str]]:
    """Generated sentences and their sentiments, a third each: what moves and which way decide together."""
    random = np.random.default_rng(seed)
    labels = [CLASSES[row % len(CLASSES)] for row in range(rows)]
    sentences = []
    for label in labels:
        welcome = bool(random.integers(2))
        change = LEVEL if label == "neutral" else UP if welcome == (label == "positive") else DOWN
        parts = (WELCOME if welcome else UNWELCOME, change, PERIODS, ENDS)
        words = " ".join(str(random.choice(part)) for part in parts).strip()
        sentences.append(f"{random.choice(COMPANIES)} said that {words} , EUR {random.integers(10, 990) / 10} mn .")
    return sentences, labels
