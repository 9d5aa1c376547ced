"""Simulated questions about drawn scans, whose answers need the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_medicine.augment import augmentation
from stillhouse_medicine.datasets.drawing import SHAPES, Lesion, body, paint
from stillhouse_medicine.datasets.questions import Question, build, by_group
from stillhouse_medicine.datasets.reader import QuestionReader
from stillhouse_medicine.images import numpy_images

WHAT_SHAPE = ("what shape is the lesion?", "which shape does the lesion have?", "what does the lesion look like?")
WHERE = ("where is the lesion?", "on which side is the lesion?", "which side of the picture shows the lesion?")
TONE = ("is the lesion bright or dark?", "how does the lesion appear, bright or dark?")
NUMBER = ("how many lesions are there?", "what is the number of lesions?", "count the lesions")
IS_SHAPE = ("is there a {}?", "does the scan show a {}?", "is the lesion a {}?")
IS_SIDE = ("is there a lesion on the {} side?", "does the {} side show a lesion?")
IS_TONE = ("is the lesion {}?", "does the lesion appear {}?")
SEVERAL = ("is there more than one lesion?", "are there several lesions?")


def vqa_sim(
    context: DataContext,
    *,
    images: int = 500,
    size: int = 32,
    noise: float = 0.08,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    length: int = 10,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Drawn scans with one lesion or two, and questions about each: shape, side, brightness and number, asked openly
    and as yes or no. The words alone do not tell: at best they reach the share of each question's commonest answer.

    Args:
        context: the seed of the scans and of the split.
        images: scans.
        size: side of a scan in pixels.
        noise: standard deviation of the noise over a scan, of the range of brightness.
        val_fraction: share of the scans that validation holds out.
        test_fraction: share of the scans that test holds out.
        length: words of a question that are kept.
        augment: random changes of training images: shift, rotate, scale, contrast, noise.

    Raises:
        DataError: there are too few scans to split.
    """
    if images < 10 or size < 16:
        raise DataError(f"{images} scans of {size} pixels are too few or too small", fix="at least 10, of 16 pixels")
    random = np.random.default_rng(context.seed)
    pictures, questions = [], []
    for number in range(images):
        name = f"scan-{number}"
        shape, tone = str(random.choice(SHAPES)), str(random.choice(["bright", "dark"]))
        side = str(random.choice(["left", "right", "both"]))
        lesions = [_lesion(shape, tone, each, random) for each in (["left", "right"] if side == "both" else [side])]
        pictures.append(paint(body(size, random), lesions, random, noise)[None])
        for text, answer, closed in _questions(shape, tone, side, random):
            questions.append(
                Question(image=name, text=text, answer=answer, closed=closed, index=len(questions), group=name)
            )
    splits, vocabulary = build(
        by_group(questions, val_fraction=val_fraction, test_fraction=test_fraction, seed=context.seed),
        numpy_images(pictures),
        [f"scan-{number}" for number in range(images)],
        length=length,
        min_answers=1,
        tokens=None,
        augment=augmentation(augment),
        grouped=("train", "val", "test"),
        description="simulated questions about drawn scans",
        where="medicine/vqa-sim",
        simulated=True,
    )
    reader = QuestionReader(
        size=size, colour=False, vocabulary=vocabulary, tokenizer=None, image="image", question="question"
    )
    return replace(splits, reader=reader)


def _lesion(shape: str, tone: str, side: str, random: np.random.Generator) -> Lesion:
    x = random.uniform(0.26, 0.38) if side == "left" else random.uniform(0.62, 0.74)
    level = random.uniform(0.8, 0.95) if tone == "bright" else random.uniform(0.05, 0.2)
    return Lesion(shape=shape, x=x, y=random.uniform(0.3, 0.7), radius=random.uniform(0.11, 0.16), level=level)


def _questions(shape: str, tone: str, side: str, random: np.random.Generator) -> list[tuple[str, str, bool]]:
    """Question, answer, and whether it is closed."""
    several = side == "both"
    found = [
        (_one(WHAT_SHAPE, random), shape, False),
        (_one(WHERE, random), side, False),
        (_one(TONE, random), tone, True),
        (_one(NUMBER, random), "two" if several else "one", False),
    ]
    asked = shape if random.random() < 0.5 else str(random.choice([each for each in SHAPES if each != shape]))
    found.append((_one(IS_SHAPE, random).format(asked), _yes(asked == shape), True))
    if not several:  # with a lesion on both sides the answer would always be yes
        asked = str(random.choice(["left", "right"]))
        found.append((_one(IS_SIDE, random).format(asked), _yes(side == asked), True))
    asked = str(random.choice(["bright", "dark"]))
    found.append((_one(IS_TONE, random).format(asked), _yes(asked == tone), True))
    found.append((_one(SEVERAL, random), _yes(several), True))
    return found


def _one(texts: tuple[str, ...], random: np.random.Generator) -> str:
    return texts[int(random.integers(len(texts)))]


def _yes(true: bool) -> str:
    return "yes" if true else "no"
