"""From inputs to what networks see: log-mel spectrograms of waveforms, standardised images. Part of each model, so
that an exported model takes plain sound or pixels."""

from __future__ import annotations

from typing import Any

import torch
import torchaudio
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError
from stillhouse.types import DataInfo

FLOOR = 1e-4
"""Power below which a mel band counts as silent, relative to a clip of unit mean power (-40 dB)."""
WINDOW_SECONDS = 0.032


def mel_settings(rate: int, mels: int, hop_ms: float) -> dict[str, Any]:
    """JSON-ready settings of a log-mel spectrogram: 32 ms windows, hops of ``hop_ms``, ``mels`` bands up to half the
    sample rate ``rate``."""
    fft = 1 << max(31, round(WINDOW_SECONDS * rate) - 1).bit_length()
    return {"rate": rate, "fft": fft, "hop": max(1, round(rate * hop_ms / 1000)), "mels": mels}


class LogMel(nn.Module):
    """Waveforms ``[B, T]`` to log-mel spectrograms ``[B, mels, frames]`` with ``frames = 1 + T // hop``.

    Each clip is brought to unit mean power first, so that loudness does not count; torchaudio computes the mel
    spectrogram (power, Hann window).

    Args:
        rate: samples a second.
        fft: samples of a window.
        hop: samples between windows.
        mels: bands.
    """

    def __init__(self, *, rate: int, fft: int, hop: int, mels: int) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(rate, n_fft=fft, hop_length=hop, n_mels=mels, normalized=True)

    def forward(self, waveform: Tensor) -> Tensor:
        """See the class."""
        power = waveform.square().mean(dim=-1, keepdim=True)
        return torch.log(self.mel(waveform * torch.rsqrt(power + 1e-8)) + FLOOR)


class Standardise(nn.Module):
    """``(x - mean) / std``, one pair for each channel of ``[B, C, H, W]``; the figures are those of training rows."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).clamp_min(1e-6).reshape(-1, 1, 1))

    def forward(self, value: Tensor) -> Tensor:
        """See the class."""
        return (value - self.mean) / self.std


class AddChannel(nn.Module):
    """``[B, H, W]`` to ``[B, 1, H, W]``."""

    def forward(self, value: Tensor) -> Tensor:
        """See the class."""
        return value.unsqueeze(1)


class Cepstrum(nn.Module):
    """Log-mel spectrograms ``[B, mels, frames]`` to mel-frequency cepstral coefficients (MFCC)
    ``[B, 1, coefficients, frames]``: their discrete cosine transform over bands (orthonormal), each coefficient
    standardised by the statistics of batch normalisation, since the first ones are far larger than the others.

    Args:
        mels: bands.
        coefficients: how many are kept, the smoothest first.
    """

    def __init__(self, mels: int, coefficients: int) -> None:
        super().__init__()
        self.transform: Tensor
        self.register_buffer("transform", torchaudio.functional.create_dct(coefficients, mels, "ortho"))
        self.standardise = nn.BatchNorm1d(coefficients, affine=False)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """See the class."""
        found: Tensor = self.standardise((spectrogram.transpose(1, 2) @ self.transform).transpose(1, 2))
        return found.unsqueeze(1)


class UnitPower(nn.Module):
    """Waveforms ``[B, T]`` at unit mean power, as ``[B, 1, 1, T]``."""

    def forward(self, waveform: Tensor) -> Tensor:
        """See the class."""
        power = waveform.square().mean(dim=-1, keepdim=True)
        return (waveform * torch.rsqrt(power + 1e-8))[:, None, None]


def audio_front(info: DataInfo, *, cepstrum: int = 0) -> nn.Sequential:
    """From the dataset's ``waveform`` ``[B, T]`` or ``spectrogram`` ``[B, mels, frames]`` to a standardised
    ``[B, 1, mels, frames]``, or to that many cepstral coefficients ``[B, 1, cepstrum, frames]``.

    Raises:
        IncompatibleError: the dataset has no sound.
    """
    settings = info.meta.get("log_mel")
    if settings is None or not {"waveform", "spectrogram"} & set(info.inputs):
        raise IncompatibleError(
            f"the model takes sound, the dataset has {sorted(info.inputs)}",
            where="models of audio_vision",
            fix="choose an image model, or a dataset with the input 'waveform' or 'spectrogram'",
        )
    layers: list[nn.Module] = [] if "spectrogram" in info.inputs else [LogMel(**settings)]
    if cepstrum:
        return nn.Sequential(*layers, Cepstrum(settings["mels"], cepstrum))
    return nn.Sequential(*layers, AddChannel(), Standardise([info.meta["log_mel_mean"]], [info.meta["log_mel_std"]]))


def frames(info: DataInfo) -> tuple[int, int]:
    """Bands and frames of the dataset's spectrograms."""
    if "spectrogram" in info.inputs:
        mels, count = info.inputs["spectrogram"].shape
        return mels, count
    settings = info.meta["log_mel"]
    return settings["mels"], 1 + info.inputs["waveform"].shape[0] // settings["hop"]


def image_front(info: DataInfo) -> nn.Sequential:
    """From the dataset's ``image`` ``[B, C, H, W]`` in [0, 1] to standardised channels.

    Raises:
        IncompatibleError: the dataset has no images.
    """
    if "image" not in info.inputs or "image_mean" not in info.meta:
        raise IncompatibleError(
            f"the model takes images, the dataset has {sorted(info.inputs)}",
            where="models of audio_vision",
            fix="choose an audio model, or a dataset with the input 'image'",
        )
    return nn.Sequential(Standardise(info.meta["image_mean"], info.meta["image_std"]))
