"""Tiny files in the official layouts of the data sets, and tasks for models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from stillhouse.kinds import OutputKind
from stillhouse.types import DataContext, DataInfo, Task, TensorSpec
from stillhouse_audio_vision.frontend import mel_settings

ESC_CATEGORIES = {0: "dog", 1: "rooster", 7: "rain", 49: "airplane"}
ESC10 = (0, 1, 7)


def tone(frequency: float, seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """A sine with a little noise."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * noise).astype(np.float32)


def make_fsdd(root: Path, *, speakers: tuple[str, ...] = ("ann", "bob", "cat", "dan"), each: int = 12) -> Path:
    """``recordings/{digit}_{speaker}_{number}.wav``, 8 kHz."""
    folder = root / "recordings"
    folder.mkdir(parents=True)
    for number, speaker in enumerate(speakers):
        for digit in range(10):
            for take in range(each):
                sound = tone(200 + 60 * digit + 5 * number, 0.1 + 0.01 * (take % 3), 8000, take)
                soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", sound, 8000, subtype="PCM_16")
    return root


def make_esc50(root: Path, *, rate: int = 4000) -> Path:
    """``meta/esc50.csv`` and ``audio/*.wav`` of four classes: two clips of one source in each fold and class."""
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, category in ESC_CATEGORIES.items():
            for take in "AB":
                source = 1000 * fold + target
                name = f"{fold}-{source}-{take}-{target}.wav"
                soundfile.write(root / "audio" / name, tone(150 + 20 * target, 0.4, rate, fold), rate, subtype="PCM_16")
                lines.append(f"{name},{fold},{target},{category},{target in ESC10},{source},{take}")
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def make_images(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), each: int = 8, seed: int = 0) -> Path:
    """``root/<class>/<n>.png`` of random pixels."""
    random = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 256, (9, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., DataContext]:
    """``context("fsdd")``: a context whose root is a folder of that name below the test's own."""

    def make(name: str = "data", seed: int = 0) -> DataContext:
        return DataContext(root=tmp_path / name, base=tmp_path, seed=seed, download=False)

    return make


@pytest.fixture(scope="session")
def fsdd_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FSDD to read."""
    return make_fsdd(tmp_path_factory.mktemp("official") / "fsdd")


@pytest.fixture(scope="session")
def esc_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ESC-50 to read."""
    return make_esc50(tmp_path_factory.mktemp("official") / "esc50")


def audio_task(*, samples: int = 2000, outputs: int = 5, kind: OutputKind = OutputKind.MULTICLASS) -> Task:
    """A task on waveforms at 8 kHz with 16 bands."""
    info = DataInfo(
        inputs={"waveform": TensorSpec((samples,))},
        classes=tuple(map(str, range(outputs))),
        meta={"log_mel": mel_settings(8000, 16, 12.5), "log_mel_mean": -4.0, "log_mel_std": 3.0},
    )
    return Task(info=info, kind=kind, outputs=outputs)


def image_task(*, shape: tuple[int, int, int] = (1, 8, 8), outputs: int = 5) -> Task:
    """A task on images."""
    info = DataInfo(
        inputs={"image": TensorSpec(shape)},
        classes=tuple(map(str, range(outputs))),
        meta={"image_mean": [0.4] * shape[0], "image_std": [0.3] * shape[0]},
    )
    return Task(info=info, kind=OutputKind.MULTICLASS, outputs=outputs)


@pytest.fixture(scope="session")
def tasks() -> SimpleNamespace:
    """``tasks.audio(...)`` and ``tasks.image(...)``."""
    return SimpleNamespace(audio=audio_task, image=image_task)


@pytest.fixture(scope="session")
def files() -> SimpleNamespace:
    """Makers of tiny files in the official layouts."""
    return SimpleNamespace(fsdd=make_fsdd, esc50=make_esc50, images=make_images, tone=tone)
