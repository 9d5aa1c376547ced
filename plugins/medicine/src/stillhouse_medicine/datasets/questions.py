"""From questions about images to splits: answers of the training rows become the classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stillhouse.data.splitting import split_groups
from stillhouse.errors import DataError
from stillhouse.types import DataInfo, Splits, TensorSpec
from stillhouse_medicine.augment import NONE, Augment
from stillhouse_medicine.images import ImageSplit
from stillhouse_medicine.text import Tokens, Vocabulary

NOT_IN_VOCABULARY = "(no answer of the vocabulary)"
"""Last class of every VQA dataset: the target of rows whose answer training does not teach. It is never right."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about one image.

    Args:
        image: name of the image.
        text: the question.
        answer: its answer, normalised by `normalise`.
        closed: answered by yes, no or a choice that the question names.
        index: stable number of the row.
        group: what must not be in two splits: the image, or the patient.
        auxiliary: asked for training alone; validation and test have none of its kind.
    """

    image: str
    text: str
    answer: str
    closed: bool
    index: int
    group: str
    auxiliary: bool = False


def normalise(answer: object) -> str:
    """An answer in lower case, without blanks around it, a full stop at its end, or runs of blanks inside it."""
    return re.sub(r"\s+", " ", str(answer)).strip().rstrip(".").strip().lower()


def by_group(
    questions: Sequence[Question], *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[Question]]:
    """Questions split so that no group is in two splits; fractions are of the groups.

    Raises:
        DataError: there are too few groups, or a fraction is not between 0 and 1.
    """
    groups = [question.group for question in questions]
    drawn = split_groups(groups, {"test": test_fraction, "val": val_fraction}, seed, unit="image")
    return {name: [questions[at] for at in drawn[name]] for name in ("train", "val", "test")}


def build(
    split: Mapping[str, Sequence[Question]],
    pictures: Tensor,
    names: Sequence[str],
    *,
    length: int,
    min_answers: int,
    tokens: Tokens | None,
    augment: Augment,
    grouped: Collection[str],
    description: str,
    where: str,
    simulated: bool = False,
    meta: Mapping[str, Any] | None = None,
) -> tuple[Splits, Vocabulary]:
    """Splits with the inputs ``image`` ``[C, H, W]`` and ``question`` ``[length]`` (word numbers), with ``tokens``
    ``[length]`` beside them when a tokenizer is given; ``target`` is the answer's class, ``closed`` (bool) its type.

    Args:
        split: questions by split name.
        pictures: ``[M, C, H, W]``, uint8.
        names: name of each picture.
        length: words (and tokens) of a question that are kept.
        min_answers: training rows that an answer needs to become a class.
        tokens: tokenizer of a pre-trained text encoder.
        augment: random changes of training images.
        grouped: split names whose groups must not overlap.
        description: for the report.
        where: the file, for errors.
        simulated: the rows come from a simulator.
        meta: more for `DataInfo.meta`.

    Raises:
        DataError: a split is empty, or no two answers are frequent enough.
    """
    for name, rows in split.items():
        if not rows:
            raise DataError(f"split '{name}' is empty", where=where, fix="check the split options and the files")
    counts = Counter(question.answer for question in split["train"])
    answers = sorted((a for a in counts if counts[a] >= min_answers), key=lambda answer: (-counts[answer], answer))
    if len(answers) < 2:
        raise DataError(
            f"{len(answers)} answer(s) occur at least {min_answers} time(s) in training rows; two are needed",
            where=where,
            fix="bring more rows, or lower dataset.min_answers",
        )
    classes = (*answers, NOT_IN_VOCABULARY)
    number = {answer: at for at, answer in enumerate(answers)}
    place = {name: at for at, name in enumerate(names)}
    vocabulary = Vocabulary.build((question.text for question in split["train"]), length=length)
    parts: dict[str, ImageSplit] = {}
    for name, rows in split.items():
        texts = [question.text for question in rows]
        columns = {
            "question": vocabulary.encode(texts),
            "target": torch.tensor([number.get(question.answer, len(answers)) for question in rows]),
            "closed": torch.tensor([question.closed for question in rows]),
            "index": torch.tensor([question.index for question in rows], dtype=torch.int64),
        }
        if tokens is not None:
            columns["tokens"] = tokens.encode(texts)
        parts[name] = ImageSplit(
            pictures,
            columns,
            picture=torch.tensor([place[question.image] for question in rows]),
            augment=augment if name == "train" else NONE,
            groups=[question.group for question in rows] if name in grouped else None,
            auxiliary=[question.auxiliary for question in rows] if any(each.auxiliary for each in rows) else None,
        )
    target = parts["train"].columns(["target"])["target"]
    inputs = {"image": TensorSpec(tuple(pictures.shape[1:])), "question": TensorSpec((length,), "int64")}
    if tokens is not None:
        inputs["tokens"] = TensorSpec((length,), "int64")
    info = DataInfo(
        inputs=inputs,
        classes=classes,
        class_counts=tuple(torch.bincount(target, minlength=len(classes)).tolist()),
        description=description,
        simulated=simulated,
        meta={
            "task": "vqa",
            "outside": len(answers),
            "words": vocabulary.size,
            "vocabulary": list(vocabulary.known),
            **({"tokens": {"name": tokens.name, "pad": tokens.pad()}} if tokens is not None else {}),
            **(meta or {}),
        },
    )
    return Splits(info=info, train=parts["train"], val=parts["val"], test=parts["test"]), vocabulary
