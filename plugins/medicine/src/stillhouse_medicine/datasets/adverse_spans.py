"""Drugs and their adverse effects, marked in sentences of case reports: the ADE corpus, or a generated sample."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from stillhouse.errors import DataError
from stillhouse.text import normalised, tagged_splits
from stillhouse.types import DataContext, Splits
from stillhouse_medicine.datasets.adverse_events import HOMEPAGE, POSITIVE

KINDS = ("drug", "effect")
SAMPLE_ROWS = 240
Marked = tuple[str, str, list[tuple[int, int, str]]]
"""Report (PubMed id), sentence, and marked spans."""

DRUGS = ("aldrovin", "beta-corzide", "calumab", "denistatin", "Elprazin", "ferolin hydrochloride", "gavitol")
EFFECTS = ("dizziness", "acute renal failure", "a skin rash", "severe headache", "hair loss", "low blood sugar")
FRAMES = (
    "{drug} caused {effect} in one patient.",
    "We report {effect} after treatment with {drug}.",
    "A man of {age} years developed {effect} while taking {drug}.",
    "{effect} resolved when {drug} was stopped.",
)


def adverse_event_spans(
    context: DataContext,
    *,
    path: Path | None = None,
    tokenizer: str = "wordpiece",
    vocabulary: int = 8000,
    max_length: int = 128,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
) -> Splits:
    """Sentences that tell of an adverse effect, in which drugs and effects are to be marked: the relations of the ADE
    corpus, or a generated sample where its file is not there.

    The official file has a line for each relation, so that a sentence with three stands there three times; here each
    counts once, with all its spans. Its offsets count in a document that is not part of it: a span is looked for in the
    sentence, where it occurs several times at the pair of places that are as far apart as the offsets say. Spans that
    share a word cannot both be marked: the first, the longer of two that begin together, is. A report (PubMed id) is in
    one split, as are sentences that nearly repeat each other.

    Args:
        context: what the framework gives.
        path: folder of DRUG-AE.rel; by default medicine/ade-corpus-v2 in STILLHOUSE_DATA, and a sample of this
            package's own making when it is not there.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "wordpiece", "bpe" or "byte-bpe":
            one is trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of a sentence that are kept.
        val_fraction: share of validation rows.
        test_fraction: share of test rows.

    Raises:
        DataError: the file cannot be used, or ``path`` does not name its folder.
        OptionError: an option is out of range.
    """
    folder = context.base / path if path is not None else context.root.parent / "ade-corpus-v2"
    simulated = path is None and not (folder / POSITIVE).is_file()
    if simulated:
        warnings.warn(
            f"'{folder / POSITIVE}' is not there: a generated sample of {SAMPLE_ROWS} sentences stands in for it. Its "
            f"numbers say nothing of real reports ({HOMEPAGE})",
            stacklevel=2,
        )
    found = sample(SAMPLE_ROWS, context.seed) if simulated else read_spans(folder / POSITIVE)
    return tagged_splits(
        [sentence for _, sentence, _ in found],
        [spans for _, _, spans in found],
        kinds=KINDS,
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=max_length,
        fractions={"test": test_fraction, "val": val_fraction},
        groups=[report for report, _, _ in found],
        overlap=1.0 if simulated else 0.8,
        column="sentence",
        description="Generated sentences on drugs" if simulated else "ADE corpus v2, drugs and effects",
        simulated=simulated,
        where=str(folder),
    )


def read_spans(file: Path) -> list[Marked]:
    """Each sentence of a report once, sorted, with its spans.

    Raises:
        DataError: the file is not there, or a line is not what it should be.
    """
    if not file.is_file():
        raise DataError(
            "the ADE corpus is not there",
            where=str(file),
            fix=f"get ADE-Corpus-V2 ({HOMEPAGE}) and put its files into that folder, or set dataset.path",
        )
    found: dict[tuple[str, str], Marked] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("|")]
        spans = _spans(fields) if len(fields) == 8 and fields[0].isdigit() else None
        if spans is None:
            raise DataError(
                f"line {number} is not a PubMed id, a sentence, an effect and a drug of it with their offsets",
                where=str(file),
                fix="get the file again: fields split by '|' in DRUG-AE.rel",
            )
        key = fields[0], normalised(fields[1])
        _, sentence, marked = found.setdefault(key, (fields[0], fields[1], []))
        # A repeat may differ in case or blanks: its spans are looked for in the sentence that is kept.
        marked += (spans if sentence == fields[1] else _spans([fields[0], sentence, *fields[2:]])) or []
    return [(report, sentence, sorted(set(spans))) for report, sentence, spans in sorted(found.values())]


def _spans(fields: list[str]) -> list[tuple[int, int, str]] | None:
    """Spans of the effect and the drug of a line; None where they are not in the sentence."""
    _, sentence, effect, effect_at, _, drug, drug_at, _ = fields
    if not (effect and drug and effect_at.isdigit() and drug_at.isdigit()):
        return None
    places = {name: _occurrences(sentence, text) for name, text in (("effect", effect), ("drug", drug))}
    if not places["effect"] or not places["drug"]:
        return None
    apart = int(effect_at) - int(drug_at)
    one, two = min(
        ((one, two) for one in places["effect"] for two in places["drug"]),
        key=lambda pair: (abs(pair[0] - pair[1] - apart), pair),
    )
    return [(one, one + len(effect), "effect"), (two, two + len(drug), "drug")]


def _occurrences(text: str, part: str) -> list[int]:
    found, at = [], text.find(part)
    while at >= 0:
        found.append(at)
        at = text.find(part, at + 1)
    return found


def sample(rows: int, seed: int) -> list[Marked]:
    """Generated sentences, each of a report of its own.

    Args:
        rows: number of sentences.
        seed: of the generator.
    """
    random = np.random.default_rng(seed)
    found = []
    for row in range(rows):
        frame = FRAMES[random.integers(len(FRAMES))]
        named = {"drug": str(random.choice(DRUGS)), "effect": str(random.choice(EFFECTS))}
        sentence = f"Case {row}: " + frame.format(**named, age=random.integers(20, 90))
        spans = [(sentence.index(text), sentence.index(text) + len(text), kind) for kind, text in named.items()]
        found.append((f"sample-{row}", sentence, sorted(spans)))
    return found
