"""Sentences of case reports that tell of an adverse effect of a drug, or do not: the ADE corpus, version 2."""

from __future__ import annotations

from pathlib import Path

from stillhouse.errors import DataError
from stillhouse.text import normalised, text_splits
from stillhouse.types import DataContext, Splits

CLASSES = ("no effect", "adverse effect")
HOMEPAGE = "https://sites.google.com/site/adecorpus"
NEGATIVE, POSITIVE = "ADE-NEG.txt", "DRUG-AE.rel"


def adverse_events(
    context: DataContext,
    *,
    path: Path | None = None,
    tokenizer: str = "wordpiece",
    vocabulary: int = 8000,
    max_length: int = 96,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
) -> Splits:
    """The ADE corpus as a classification of sentences: does one tell of an adverse effect of a drug?

    The official files have a line for each relation, so that a sentence with three stands there three times, and two
    sentences of one report resemble each other. Here each sentence counts once, and a report (PubMed id) is in one
    split, as are sentences that nearly repeat each other. Figures on the lines as they are, split at random, are
    higher, and mean less.

    Args:
        context: what the framework gives.
        path: folder of the two files; by default medicine/ade-corpus-v2 in STILLHOUSE_DATA.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "wordpiece" or "bpe": one is
            trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of a sentence that are kept.
        val_fraction: share of validation rows.
        test_fraction: share of test rows.

    Raises:
        DataError: a file is not there, or a line is not what it should be.
        OptionError: an option is out of range.
    """
    folder = context.base / path if path is not None else context.root.parent / "ade-corpus-v2"
    found = read_corpus(folder)
    return text_splits(
        [sentence for _, sentence, _ in found],
        [label for _, _, label in found],
        classes=CLASSES,
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=max_length,
        fractions={"test": test_fraction, "val": val_fraction},
        groups=[document for document, _, _ in found],
        column="sentence",
        description="ADE corpus v2, each sentence once",
        where=str(folder),
    )


def read_corpus(folder: Path) -> list[tuple[str, str, int]]:
    """PubMed id, sentence and class of each sentence, sorted; each once in its report, as positive if it is ever.

    Raises:
        DataError: a file is not there, or a line is not what it should be.
    """
    found: dict[tuple[str, str], tuple[str, str, int]] = {}
    for name, label in ((POSITIVE, 1), (NEGATIVE, 0)):
        file = folder / name
        if not file.is_file():
            raise DataError(
                "the ADE corpus is not there",
                where=str(file),
                fix=f"get ADE-Corpus-V2 ({HOMEPAGE}) and put its files into that folder, or set dataset.path",
            )
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if not line.strip():
                continue
            document, sentence = _sentence(line, label)
            if not document.isdigit() or not sentence:
                raise DataError(
                    f"line {number} is not a PubMed id and a sentence",
                    where=str(file),
                    fix="get the file again: 'id NEG sentence' in ADE-NEG.txt, fields split by '|' in DRUG-AE.rel",
                )
            found.setdefault((document, normalised(sentence)), (document, sentence, label))
    return sorted(found.values())


def _sentence(line: str, label: int) -> tuple[str, str]:
    if label:
        fields = line.split("|")
        return fields[0].strip(), fields[1].strip() if len(fields) == 8 else ""
    document, _, rest = line.strip().partition(" NEG ")
    return document.strip(), rest.strip()
