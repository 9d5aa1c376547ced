"""VQA-RAD: questions of clinicians about radiology images (Lau, Gayen, Ben Abacha & Demner-Fushman, 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_medicine.augment import augmentation
from stillhouse_medicine.datasets.questions import Question, build, by_group, normalise
from stillhouse_medicine.datasets.reader import QuestionReader
from stillhouse_medicine.datasets.records import read_records, text_of
from stillhouse_medicine.images import numpy_images, read_image
from stillhouse_medicine.text import Tokens, words

OSF_FILE, OSF_IMAGES = "VQA_RAD Dataset Public.json", "VQA_RAD Image Folder"
BODY_PARTS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}
"""Words for what the files say of each image in ``image_organ``."""
FIRST_ORGAN_QUESTION = 100_000_000
"""Row ids of questions about ``image_organ`` begin here, beyond those of the files' rows."""
PUBLISHED = (
    "they are published at https://osf.io/89kps (CC0): put 'VQA_RAD Dataset Public.json' and the folder "
    "'VQA_RAD Image Folder' there, or the research layout: trainset.json, testset.json and images/"
)


def vqa_rad(
    context: DataContext,
    *,
    split: Literal["auto", "official", "by-image", "by-question"] = "auto",
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    size: int = 64,
    colour: bool = False,
    length: int = 20,
    min_answers: int = 1,
    tokenizer: str | None = None,
    augment: dict[str, float] | None = None,
    organ_questions: bool = False,
) -> Splits:
    """Questions of both official layouts: the authors' JSON with its image folder, or trainset.json and testset.json
    with images/.

    All test images of the official split also occur in training, so a model may recognise the image; ``by-image``
    holds out whole images. Validation images are held out from training in both. ``by-question`` holds out questions,
    as the literature does: images occur in all splits, and so do rewordings of a question, but no image is asked the
    same words in two. The answers of training rows are the classes; a row with another answer counts as wrong.

    Args:
        context: where the files are, and the seed of the split.
        split: "official"; "by-image": no image in two splits; "by-question": no question about an image in two splits;
            "auto": official when the test rows are there, else by-image.
        val_fraction: share of the images (by-question: of the questions) that validation holds out.
        test_fraction: the same of test, where it is drawn here.
        size: side of the square image in pixels; the longer side is scaled to it.
        colour: three channels instead of one; few of the images have colours.
        length: words (and tokens) of a question that are kept.
        min_answers: training rows that an answer needs to become a class.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer, for a pre-trained text encoder.
        augment: random changes of training images: shift, rotate, scale, contrast, noise.
        organ_questions: training rows that ask which part of the body each training image shows, as the files say in
            ``image_organ``: few answers say so, and image encoders learn it from them with difficulty.

    Raises:
        DataError: files are missing or malformed, or the options leave a split without rows.
    """
    train, test, images, source = _questions(context.root)
    if split == "auto":
        split = "official" if test else "by-image"
    if split == "official" and not test:
        raise DataError(
            "the official split needs the test rows, and testset.json is not there",
            where=str(context.root),
            fix=f"put it there, or set dataset.split to 'by-image'; {PUBLISHED}",
        )
    if split == "official":
        parts = by_group(train, val_fraction=val_fraction, test_fraction=0.0, seed=context.seed) | {"test": test}
        grouped, said = ("train", "val"), "official split (test images occur in training)"
    elif split == "by-question":
        rows = [_asked_alone(question) for question in [*train, *test]]
        parts = by_group(rows, val_fraction=val_fraction, test_fraction=test_fraction, seed=context.seed)
        grouped, said = ("train", "val", "test"), "split by question (test images occur in training)"
    else:
        parts = by_group([*train, *test], val_fraction=val_fraction, test_fraction=test_fraction, seed=context.seed)
        grouped, said = ("train", "val", "test"), "split by image"
    if organ_questions:
        parts["train"] = [*parts["train"], *_organ_questions(source, {question.image for question in parts["train"]})]
    names = sorted({question.image for question in [*train, *test]})
    pictures = numpy_images([read_image(images / name, size, colour=colour, where=str(images)) for name in names])
    splits, vocabulary = build(
        parts,
        pictures,
        names,
        length=length,
        min_answers=min_answers,
        tokens=Tokens(tokenizer, length) if tokenizer else None,
        augment=augmentation(augment),
        grouped=grouped,
        description=f"VQA-RAD: questions about radiology images, {said}",
        where=str(source),
        meta={"split": split},
    )
    reader = QuestionReader(
        size=size, colour=colour, vocabulary=vocabulary, tokenizer=tokenizer, image="image_name", question="question"
    )
    return replace(splits, reader=reader)


def _asked_alone(question: Question) -> Question:
    """The question in a group of its own: the rows that ask its image the same words, which the files repeat."""
    return replace(question, group=f"{question.image}: {' '.join(words(question.text))}")


def _questions(root: Path) -> tuple[list[Question], list[Question], Path, Path]:
    """Training rows, test rows (none when their file is missing), the image folder, and the file of training rows."""
    research, authors = root / "trainset.json", root / OSF_FILE
    source = research if research.is_file() else authors
    if not source.is_file():
        raise DataError(
            f"VQA-RAD is not there: neither trainset.json nor '{OSF_FILE}'",
            where=str(root),
            fix=f"put the official files into that folder; {PUBLISHED}",
        )
    images = next((root / name for name in ("images", OSF_IMAGES) if (root / name).is_dir()), None)
    if images is None:
        raise DataError(
            f"the image folder is not there: neither images/ nor '{OSF_IMAGES}'", where=str(root), fix=PUBLISHED
        )
    rows = read_records(source)
    if source == research:
        train = [_question(row, source, number) for number, row in enumerate(rows)]
        path = root / "testset.json"
        found = read_records(path) if path.is_file() else []
        test = [_question(row, path, number, first=len(train)) for number, row in enumerate(found)]
        return train, test, images, source
    is_test = [text_of(row, "phrase_type", f"{source}, row {at + 1}").startswith("test") for at, row in enumerate(rows)]
    train = [_question(row, source, at) for at, row in enumerate(rows) if not is_test[at]]
    test = [_question(row, source, at) for at, row in enumerate(rows) if is_test[at]]
    return [*train, *_frames(rows, is_test, source)], test, images, source


def _frames(rows: Sequence[dict[str, Any]], is_test: Sequence[bool], source: Path) -> list[Question]:
    """Training questions in the wording of their frame, which the research layout lists as rows of their own."""
    framed = []
    for number, row in enumerate(rows):
        frame = str(row.get("question_frame") or "").strip()
        if not is_test[number] and frame and frame.upper() != "NULL":
            framed.append(_question({**row, "question": frame}, source, number, first=len(rows)))
    return framed


def _organ_questions(source: Path, images: set[str]) -> list[Question]:
    """What part of the body each of ``images`` shows, asked openly and for each part."""
    organs: dict[str, str] = {}
    for number, row in enumerate(read_records(source), start=1):
        organ = text_of(row, "image_organ", f"{source}, row {number}").upper()
        if organ not in BODY_PARTS:
            raise DataError(f"image_organ is '{organ}'", where=f"{source}, row {number}", fix=", ".join(BODY_PARTS))
        organs[str(row["image_name"]).strip()] = BODY_PARTS[organ]
    asked = []
    for image in sorted(images & set(organs)):
        shown = organs[image]
        asked.append((image, "what part of the body is shown?", shown, False))
        asked += [
            (image, f"is this an image of the {part}?", _yes(part == shown), True) for part in BODY_PARTS.values()
        ]
    return [
        Question(
            image=image,
            text=text,
            answer=answer,
            closed=closed,
            index=FIRST_ORGAN_QUESTION + at,
            group=image,
            auxiliary=True,
        )
        for at, (image, text, answer, closed) in enumerate(asked)
    ]


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _question(row: dict[str, Any], source: Path, number: int, first: int = 0) -> Question:
    place = f"{source}, row {number + 1}"
    kind = text_of(row, "answer_type", place).upper()
    if kind not in ("CLOSED", "OPEN"):
        raise DataError(f"answer_type is '{kind}'", where=place, fix="CLOSED or OPEN")
    image = text_of(row, "image_name", place)
    return Question(
        image=image,
        text=text_of(row, "question", place),
        answer=normalise(text_of(row, "answer", place)),
        closed=kind == "CLOSED",
        index=first + number,
        group=image,
    )
