"""The plugin keeps the contract, on the embedded data and on tiny files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import stillhouse.testing

pytestmark = pytest.mark.filterwarnings("ignore:.*not the official file")

DATA = Path(tempfile.gettempdir()) / f"stillhouse-medicine-{os.getpid()}"
OWN = DATA / "own"


@pytest.fixture(scope="module", autouse=True)
def samples(files: SimpleNamespace) -> Iterator[None]:
    """Official files in miniature, and some of a user's own."""
    files.rad_research(DATA / "medicine" / "vqa-rad")
    (DATA / "medicine" / "medmnist").mkdir()
    np.savez(DATA / "medicine" / "medmnist" / "pneumoniamnist.npz", **files.medmnist(rows=(64, 32, 32)))
    questions = []
    for number in range(12):
        name = files.save(OWN / "vqa" / f"{number}.png", files.picture(number)).name
        questions += [{"image": name, "question": asked, "answer": str(answer)} for asked, answer, _ in files.asked]
        files.save(OWN / "classes" / "ab"[number % 2] / name, files.picture(number))
        files.save(OWN / "masks" / "images" / name, files.picture(number))
        files.save(OWN / "masks" / "masks" / name, files.picture(number) // 128)
    (OWN / "vqa" / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
    files.ade(DATA / "medicine" / "ade-corpus-v2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_DATA", str(DATA))
        yield
    shutil.rmtree(DATA)


test_contract = stillhouse.testing.contract(
    "medicine",
    options={
        "medicine/vqa-rad": {"size": 32},
        "dataset:medicine/vqa": {"path": str(OWN / "vqa" / "questions.json"), "size": 32},
        "medicine/medmnist": {},
        "medicine/adverse-events": {},
        "medicine/image-folder": {"path": str(OWN / "classes"), "size": 32},
        "medicine/mask-folder": {"path": str(OWN / "masks"), "size": 32},
    },
)
