"""Reading new sound files and images for a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stillhouse.data.folders import files_to_read
from stillhouse.errors import DataError
from stillhouse.types import TensorSplit
from stillhouse_audio_vision.datasets.sounds import SUFFIXES, fixed, read_sound
from stillhouse_audio_vision.frontend import LogMel

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class AudioReader:
    """A sound file, or all sound files in and below a folder; a `stillhouse.types.Reader`.

    The mean of the channels, resampled to ``rate``, cut to its middle or with silence on both sides to ``seconds``, as
    float32 from -1 to 1. A ``spectrogram`` is the logarithm of its mel bands.

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
        files = files_to_read(Path(path), SUFFIXES, what="sound")
        rate = self.log_mel["rate"]
        sounds = [read_sound(file, rate) for file in files.values()]
        length = round(self.seconds * rate)
        value = torch.from_numpy(np.stack([fixed(sound, length) for sound in sounds]))
        if self.entry == "spectrogram":
            value = LogMel(**self.log_mel)(value)
        return TensorSplit({self.entry: value}), {
            "file": list(files),
            "seconds": [round(len(sound) / rate, 3) for sound in sounds],
        }


class ImageReader:
    """An image file, or all images in and below a folder; a `stillhouse.types.Reader`.

    Grey (Pillow's mode L) for one channel, RGB for three, resized to ``shape`` bilinearly without keeping proportions,
    and divided by 255: float32 from 0 to 1, channels first.

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
        files = files_to_read(Path(path), IMAGE_SUFFIXES, what="image")
        channels, height, width = self.shape
        images = [read_image(file, channels=channels, size=(height, width)) for file in files.values()]
        return TensorSplit({"image": torch.stack(images).float() / 255.0}), {"file": list(files)}


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
