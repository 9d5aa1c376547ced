"""Reading new sound files and images for a trained model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stillhouse.errors import DataError
from stillhouse.types import TensorSplit
from stillhouse_audio_vision.datasets.sounds import SUFFIXES, fixed, read_sound
from stillhouse_audio_vision.frontend import LogMel

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class AudioReader:
    """A sound file, or all sound files of a folder; a `stillhouse.types.Reader`.

    Args:
        seconds: length of a row; longer files are cut to their middle, shorter ones padded.
        entry: ``waveform`` or ``spectrogram``.
        rate: samples a second, as are the settings of the log-mel spectrogram that follow.
        fft: samples of a window.
        hop: samples between windows.
        mels: bands.
    """

    def __init__(self, *, seconds: float, entry: str, rate: int, fft: int, hop: int, mels: int) -> None:
        self.seconds, self.entry = seconds, entry
        self.log_mel = {"rate": rate, "fft": fft, "hop": hop, "mels": mels}

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"seconds": self.seconds, "entry": self.entry, **self.log_mel}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(**state)

    def read(self, path: Path) -> tuple[TensorSplit, dict[str, list[Any]]]:
        """One row a file, and its ``file`` and length in ``seconds``.

        Raises:
            DataError: there is no such file, none in the folder, or one cannot be read.
        """
        files = files_of(Path(path), SUFFIXES, what="sound")
        rate = self.log_mel["rate"]
        sounds = [read_sound(file, rate) for file in files]
        length = round(self.seconds * rate)
        value = torch.from_numpy(np.stack([fixed(sound, length) for sound in sounds]))
        if self.entry == "spectrogram":
            value = LogMel(**self.log_mel)(value)
        return TensorSplit({self.entry: value}), {
            "file": [file.name for file in files],
            "seconds": [round(len(sound) / rate, 3) for sound in sounds],
        }


class ImageReader:
    """An image file, or all images of a folder; a `stillhouse.types.Reader`.

    Args:
        shape: channels, height, width that the model sees; images are resized to it.
    """

    def __init__(self, *, shape: list[int]) -> None:
        self.shape = list(shape)

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"shape": self.shape}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(**state)

    def read(self, path: Path) -> tuple[TensorSplit, dict[str, list[Any]]]:
        """One row a file, and its ``file``.

        Raises:
            DataError: there is no such file, none in the folder, or one cannot be read.
        """
        files = files_of(Path(path), IMAGE_SUFFIXES, what="image")
        channels, height, width = self.shape
        images = [read_image(file, channels=channels, size=(height, width)) for file in files]
        return TensorSplit({"image": torch.stack(images).float() / 255.0}), {"file": [file.name for file in files]}


def read_image(path: Path, *, channels: int, size: tuple[int, int]) -> Tensor:
    """An image file as bytes ``[C, H, W]``.

    Raises:
        DataError: the file is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            picture = image.convert("L" if channels == 1 else "RGB")
            if picture.size != (size[1], size[0]):
                picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            values = np.asarray(picture, dtype=np.uint8).reshape(*size, channels)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise DataError(
            f"the image cannot be read: {error}", where=str(path), fix="get the file again, or remove it"
        ) from error
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def files_of(path: Path, suffixes: tuple[str, ...], *, what: str) -> list[Path]:
    """The file itself, or the files of a folder with one of the ``suffixes``, by name.

    Raises:
        DataError: there is none.
    """
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in suffixes)
        if not found:
            raise DataError(f"the folder has no {what} files", where=str(path), fix=f"files with {', '.join(suffixes)}")
        return found
    if not os.path.isfile(path):
        raise DataError(f"the {what} file does not exist", where=str(path), fix="correct the path")
    return [path]
