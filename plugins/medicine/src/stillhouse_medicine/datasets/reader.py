"""Reading new files for a trained model: images, or questions about images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from stillhouse.data.folders import files_to_read
from stillhouse.errors import StillhouseError
from stillhouse_medicine.datasets.records import read_records, require_column, text_of
from stillhouse_medicine.images import SUFFIXES, ImageSplit, numpy_images, read_image
from stillhouse_medicine.text import Tokens, Vocabulary


class QuestionReader:
    """Questions of a CSV or JSON file, whose images lie beside it; a `stillhouse.types.Reader`.

    Args:
        size: side of the images in pixels.
        colour: three channels, or one.
        vocabulary: words of the training questions.
        tokenizer: of a pre-trained text encoder, when one was used.
        image: column with the image's name: a path relative to the file, or to ``images/`` beside it.
        question: column with the question.
    """

    def __init__(
        self, *, size: int, colour: bool, vocabulary: Vocabulary, tokenizer: str | None, image: str, question: str
    ) -> None:
        self.size, self.colour, self.vocabulary, self.tokenizer = size, colour, vocabulary, tokenizer
        self.image, self.question = image, question

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        plain = {name: getattr(self, name) for name in ("size", "colour", "tokenizer", "image", "question")}
        return {**plain, "vocabulary": self.vocabulary.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(**{**state, "vocabulary": Vocabulary.from_state(state["vocabulary"])})

    def read(self, path: Path) -> tuple[ImageSplit, dict[str, list[Any]]]:
        """A row for each question, and its ``image`` and ``question``.

        Raises:
            DataError: the file or an image cannot be read, or a column is missing.
        """
        path = Path(path)
        rows = read_records(path)
        for name in (self.image, self.question):
            require_column(rows, name, path)
        places = [f"{path}, row {number}" for number in range(1, len(rows) + 1)]
        images = [text_of(row, self.image, place) for row, place in zip(rows, places, strict=True)]
        texts = [text_of(row, self.question, place) for row, place in zip(rows, places, strict=True)]
        known: dict[str, int] = {}
        pictures = []
        for image, place in zip(images, places, strict=True):
            if image not in known:
                known[image] = len(pictures)
                at = f"{place}, column '{self.image}'"
                pictures.append(read_image(image_path(path.parent, image), self.size, colour=self.colour, where=at))
        columns = {"question": self.vocabulary.encode(texts), "index": torch.arange(len(texts))}
        if self.tokenizer:
            try:
                columns["tokens"] = Tokens(self.tokenizer, self.vocabulary.length).encode(texts)
            except StillhouseError as error:  # the teacher's tokenizer; few students need it
                warnings.warn(f"rows have no tokens for a pre-trained text encoder: {error.what}", stacklevel=2)
        split = ImageSplit(numpy_images(pictures), columns, picture=torch.tensor([known[image] for image in images]))
        return split, {"image": images, "question": texts}


class ImageReader:
    """Images of a folder, or a single one; a `stillhouse.types.Reader`.

    Grey, or RGB with ``colour``; the longer side is resized to ``size`` and the shorter centred on black; divided by
    255: float32 from 0 to 1, channels first.

    Args:
        size: side of the images in pixels.
        colour: three channels, or one.
    """

    def __init__(self, *, size: int, colour: bool) -> None:
        self.size, self.colour = size, colour

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"size": self.size, "colour": self.colour}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(**state)

    def read(self, path: Path) -> tuple[ImageSplit, dict[str, list[Any]]]:
        """A row for each image file below ``path``, in order of their names, and its ``file``.

        Raises:
            DataError: there is none, or one cannot be read.
        """
        files = files_to_read(Path(path), SUFFIXES, what="image")
        pictures = numpy_images([read_image(each, self.size, colour=self.colour) for each in files.values()])
        return ImageSplit(pictures, {"index": torch.arange(len(files))}), {"file": list(files)}


def is_image(path: Path) -> bool:
    """A visible file whose name ends as images do."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def image_path(folder: Path, name: str) -> Path:
    """Where an image named in a file of ``folder`` lies: there, or in ``images/`` below it."""
    beside = folder / name
    return beside if os.path.isfile(beside) or not (folder / "images").is_dir() else folder / "images" / name
