"""Tiny files in the official layouts, small pre-trained models, and tasks for models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stillhouse.kinds import OutputKind
from stillhouse.types import DataContext, DataInfo, Task, TensorSpec

PARTS = ("train", "val", "test")
ASKED = (
    ("Is there a fracture?", "Yes", "CLOSED"),
    ("Is there a mass?", "no", "CLOSED "),
    ("Where is the lesion?", "left  lung.", "OPEN"),
    ("How many ribs are seen?", 12, "OPEN"),
)


def picture(seed: int, height: int = 40, width: int = 30, channels: int = 1) -> np.ndarray:
    """Random pixels ``[height, width]`` or ``[height, width, channels]``, uint8."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    """Pixels as an image file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def rad_rows(images: int, *, first: int = 0) -> list[dict[str, Any]]:
    """Four questions about each of ``images`` images, in the fields of the research layout."""
    return [
        {
            "qid": number * 4 + at,
            "image_name": f"synpic{first + number}.jpg",
            "image_organ": "CHEST",
            "question": question,
            "answer": answer,
            "answer_type": kind,
            "question_type": "PRES",
            "phrase_type": "freeform",
        }
        for number in range(images)
        for at, (question, answer, kind) in enumerate(ASKED)
    ]


def rad_research(root: Path, *, images: int = 10, test: list[dict[str, Any]] | None = None) -> Path:
    """``trainset.json``, ``images/`` and, when there are ``test`` rows, ``testset.json``."""
    rows = rad_rows(images)
    for name in sorted({row["image_name"] for row in [*rows, *(test or [])]}):
        save(root / "images" / name, picture(int(name[6:-4])))
    (root / "trainset.json").write_text(json.dumps(rows), encoding="utf-8")
    if test is not None:
        (root / "testset.json").write_text(json.dumps(test), encoding="utf-8")
    return root


def rad_authors(root: Path, *, images: int = 10) -> Path:
    """The authors' JSON with its image folder; one question of each image is a test row, another has a frame."""
    rows = []
    for row in rad_rows(images):
        at = row["qid"] % 4
        row["phrase_type"] = "test_freeform" if at == 0 else "freeform"
        row["question_frame"] = "Is a mass present?" if at == 1 else "NULL"
        row["qid_linked_id"] = "a1"
        rows.append(row)
    for number in range(images):
        save(root / "VQA_RAD Image Folder" / f"synpic{number}.jpg", picture(number))
    (root / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


def medmnist_arrays(
    *, rows: tuple[int, int, int] = (24, 8, 10), size: int = 28, labels: int = 2, columns: int = 1, colour: bool = False
) -> dict[str, np.ndarray]:
    """The six arrays of a MedMNIST file; labels go round."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in zip(PARTS, rows, strict=True):
        shape = (count, size, size, 3) if colour else (count, size, size)
        arrays[f"{part}_images"] = random.integers(0, 256, shape, dtype=np.uint8)
        made = np.arange(count * columns).reshape(count, columns) % labels
        arrays[f"{part}_labels"] = made.astype(np.uint8)
    return arrays


def bert(folder: Path) -> Path:
    """A tiny text encoder with its tokenizer, as Hugging Face saves them."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "there", "a", "the", "where", "lesion", "?", "mass"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def vit(folder: Path) -> Path:
    """A tiny vision transformer for images of 16 pixels, as Hugging Face saves it."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def resnet_hf(folder: Path) -> Path:
    """A tiny convolutional network, whose last hidden state is a map, as Hugging Face saves it."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    return folder


def vqa_task(*, size: int = 32, channels: int = 1, tokens: dict[str, Any] | None = None) -> Task:
    """Five answers and the class outside, 30 words, questions of 8 words."""
    inputs = {"image": TensorSpec((channels, size, size)), "question": TensorSpec((8,), "int64")}
    if tokens is not None:
        inputs["tokens"] = TensorSpec((8,), "int64")
    classes = ("yes", "no", "left", "right", "two", "(none)")
    meta = {"task": "vqa", "outside": 5, "words": 30, **({"tokens": tokens} if tokens else {})}
    info = DataInfo(inputs=inputs, classes=classes, meta=meta)
    return Task(info=info, kind=OutputKind.MULTICLASS, outputs=6)


def image_task(
    *, size: int = 28, channels: int = 1, outputs: int = 3, kind: OutputKind = OutputKind.MULTICLASS
) -> Task:
    """Images and ``outputs`` classes."""
    names = tuple(f"c{number}" for number in range(outputs))
    info = DataInfo(inputs={"image": TensorSpec((channels, size, size))}, classes=names)
    return Task(info=info, kind=kind, outputs=outputs)


def ade(folder: Path) -> None:
    """The two files of the ADE corpus: 40 reports with two sentences each, one of them on two lines."""
    folder.mkdir(parents=True, exist_ok=True)
    drugs = ("aspirin", "digoxin", "lithium", "heparin", "insulin", "codeine", "warfarin", "quinine")
    effects = ("rash", "bleeding", "nausea", "fever", "tremor")
    pairs = [(drug, effect) for drug in drugs for effect in effects]
    positive = [f"{1000 + at}|Severe {e} after {d}.|{e}|7|9|{d}|1|2" for at, (d, e) in enumerate(pairs)]
    negative = [f"{1000 + at} NEG A patient with {e} was given {d}." for at, (d, e) in enumerate(pairs)]
    (folder / "DRUG-AE.rel").write_text("\n".join([*positive, positive[0], ""]))
    (folder / "ADE-NEG.txt").write_text("\n".join([*negative, ""]))


@pytest.fixture(scope="session")
def files() -> SimpleNamespace:
    """Writers of tiny files."""
    return SimpleNamespace(
        picture=picture,
        save=save,
        rad_rows=rad_rows,
        rad_research=rad_research,
        rad_authors=rad_authors,
        medmnist=medmnist_arrays,
        ade=ade,
        asked=ASKED,
    )


@pytest.fixture
def saved() -> SimpleNamespace:
    """Writers of tiny pre-trained models."""
    return SimpleNamespace(bert=bert, vit=vit, resnet=resnet_hf)


@pytest.fixture
def tasks() -> SimpleNamespace:
    """What models are built for."""
    return SimpleNamespace(vqa=vqa_task, image=image_task)


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., DataContext]:
    """Contexts whose root and base are a folder of the test."""

    def make(root: Path | None = None, *, seed: int = 0) -> DataContext:
        return DataContext(root=root or tmp_path, base=tmp_path, seed=seed, download=False)

    return make
