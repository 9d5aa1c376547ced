"""The plugin keeps the contract, on the embedded data and on tiny files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

import stillhouse.testing

DATA = Path(tempfile.gettempdir()) / f"stillhouse-audio-vision-{os.getpid()}"
SHORT = {"seconds": 0.25, "mels": 16}


@pytest.fixture(scope="module", autouse=True)
def samples(files: SimpleNamespace) -> Iterator[None]:
    """Official files in miniature, and some of a user's own; CIFAR's are accepted by their checksums only."""
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    files.fsdd(DATA / "audio_vision" / "fsdd", speakers=speakers, each=4)
    files.esc50(DATA / "audio_vision" / "esc50")
    files.images(DATA / "photos")
    clips = DATA / "clips"
    clips.mkdir()
    lines = ["file,tags"]
    for number in range(24):
        soundfile.write(clips / f"{number}.wav", files.tone(200 + 400 * (number % 3), 0.3, 8000, number), 8000)
        lines.append(f"{number}.wav,{('hum', 'beep', 'hum;beep')[number % 3]}")
    (clips / "tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    scenes = [f"{number}.wav,{('street', 'office', 'park')[number % 3]},{number // 3}" for number in range(24)]
    (clips / "scenes.csv").write_text("\n".join(["file,scene,place", *scenes]) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_DATA", str(DATA))
        yield
    shutil.rmtree(DATA)


test_contract = stillhouse.testing.contract(
    "audio_vision",
    options={
        "audio_vision/fsdd": SHORT,
        "audio_vision/esc50": {**SHORT, "rate": 4000},
        "audio_vision/audio-folder": {**SHORT, "path": str(DATA / "clips"), "rate": 8000},
        "audio_vision/image-folder": {"path": str(DATA / "photos")},
    },
)
