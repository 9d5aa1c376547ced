"""The user's own questions about images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_medicine.augment import augmentation
from stillhouse_medicine.datasets.questions import Question, build, by_group, normalise
from stillhouse_medicine.datasets.reader import QuestionReader, image_path
from stillhouse_medicine.datasets.records import read_records, require_column, text_of
from stillhouse_medicine.images import numpy_images, read_image
from stillhouse_medicine.text import Tokens

SPLITS = ("train", "val", "test")


def vqa(
    context: DataContext,
    *,
    path: Path,
    images: Path | None = None,
    image: str = "image",
    question: str = "question",
    answer: str = "answer",
    answer_type: str | None = None,
    group: str | None = None,
    split: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    size: int = 64,
    colour: bool = False,
    length: int = 20,
    min_answers: int = 1,
    tokenizer: str | None = None,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Your questions from a CSV file or a JSON array of objects, and your images.

    Args:
        context: the folder that paths are relative to, and the seed of the split.
        path: the file, relative to the recipe.
        images: folder of the images; by default that of the file, or images/ beside it.
        image: column with the image's file name.
        question: column with the question.
        answer: column with the answer.
        answer_type: column with CLOSED or OPEN; without it, a question answered by yes or no is closed.
        group: column whose values must not be in two splits (a patient); the image by default.
        split: column with train, val or test; without it groups are held out at random.
        val_fraction: share of the groups that validation holds out.
        test_fraction: share of the groups that test holds out.
        size: side of the square image in pixels; the longer side is scaled to it.
        colour: three channels instead of one.
        length: words (and tokens) of a question that are kept.
        min_answers: training rows that an answer needs to become a class.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer, for a pre-trained text encoder.
        augment: random changes of training images: shift, rotate, scale, contrast, noise, mirror.

    Raises:
        DataError: a file, column or image is missing or malformed, or a split is empty.
    """
    source = context.base / path
    rows = read_records(source)
    for name in (image, question, answer, answer_type, group, split):
        if name is not None:
            require_column(rows, name, source)
    questions, given = [], []
    for number, row in enumerate(rows):
        place = f"{source}, row {number + 1}"
        name = text_of(row, image, place)
        reply = normalise(text_of(row, answer, place))
        questions.append(
            Question(
                image=name,
                text=text_of(row, question, place),
                answer=reply,
                closed=_closed(row, answer_type, reply, place),
                index=number,
                group=name if group is None else text_of(row, group, place),
            )
        )
        given.append(_split(row, split, place))
    if split is None:
        parts = by_group(questions, val_fraction=val_fraction, test_fraction=test_fraction, seed=context.seed)
    else:
        parts = {name: [q for q, s in zip(questions, given, strict=True) if s == name] for name in SPLITS}
    names = sorted({each.image for each in questions})
    first = {each.image: f"{source}, row {each.index + 1}, column '{image}'" for each in reversed(questions)}
    folder = source.parent if images is None else context.base / images
    located = {name: image_path(folder, name) for name in names}
    pictures = numpy_images([read_image(located[name], size, colour=colour, where=first[name]) for name in names])
    splits, vocabulary = build(
        parts,
        pictures,
        names,
        length=length,
        min_answers=min_answers,
        tokens=Tokens(tokenizer, length) if tokenizer else None,
        augment=augmentation(augment),
        grouped=SPLITS,
        description=f"questions about images from {source.name}",
        where=str(source),
    )
    reader = QuestionReader(
        size=size, colour=colour, vocabulary=vocabulary, tokenizer=tokenizer, image=image, question=question
    )
    return replace(splits, reader=reader)


def _closed(row: dict[str, Any], column: str | None, answer: str, place: str) -> bool:
    if column is None:
        return answer in ("yes", "no")
    kind = text_of(row, column, place).upper()
    if kind not in ("CLOSED", "OPEN"):
        raise DataError(f"'{column}' is '{kind}'", where=place, fix="CLOSED or OPEN")
    return kind == "CLOSED"


def _split(row: dict[str, Any], column: str | None, place: str) -> str:
    if column is None:
        return ""
    name = text_of(row, column, place).lower()
    if name not in SPLITS:
        raise DataError(f"'{column}' is '{name}'", where=place, fix="train, val or test")
    return name
